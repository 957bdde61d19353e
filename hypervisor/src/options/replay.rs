//! What a replay is told to do beside replaying, and how this host is to differ from others. Pure.

use super::number;

/// Where a replay stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After the log's entry of this number, from 0 on.
    Entry(u64),
    /// After the synchronous exit of this number.
    Exit(u64),
    /// After the first synchronous exit at which so many instructions are retired.
    Count(u64),
    /// After the checkpoint of this number, from 1 on.
    Checkpoint(u64),
}

/// A bit that is flipped on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plant<'a> {
    /// Where.
    pub place: PlantPlace<'a>,
    /// Which bit.
    pub bit: u8,
    /// Right after which checkpoint, from 1 on; 0 = at the start.
    pub after: u64,
}

/// Where a bit is flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantPlace<'a> {
    /// In the byte at this guest-physical address.
    Memory(u64),
    /// In a register.
    Register(&'a str),
    /// In the state of a device.
    Device(&'a str),
}

/// What a replay is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayOptions<'a> {
    /// Where to stop.
    pub until: Option<Until>,
    /// A bit to flip.
    pub plant: Option<Plant<'a>>,
    /// Take a checkpoint at the first, and go back to it once at the second.
    pub restore: Option<(u64, u64)>,
}

/// `entry:K`, `exit:K`, `n:K` or `checkpoint:K`.
pub fn until(text: &str) -> Option<Until> {
    let (kind, at) = text.split_once(':')?;
    let at = number(at)?;
    Some(match kind {
        "entry" => Until::Entry(at),
        "exit" => Until::Exit(at),
        "n" => Until::Count(at),
        "checkpoint" => Until::Checkpoint(at),
        _ => return None,
    })
}

/// `memory:ADDRESS:BIT@CHECKPOINT`, `register:NAME:BIT@CHECKPOINT` or `device:NAME:BIT@CHECKPOINT`.
pub fn plant(text: &str) -> Option<Plant<'_>> {
    let (what, after) = text.split_once('@')?;
    let mut words = what.split(':');
    let (kind, place, bit) = (words.next()?, words.next()?, words.next()?);
    let bit = number(bit).and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 64)?;
    if words.next().is_some() || place.is_empty() {
        return None;
    }
    let place = match kind {
        "memory" if bit < 8 => PlantPlace::Memory(number(place)?),
        "register" => PlantPlace::Register(place),
        "device" => PlantPlace::Device(place),
        _ => return None,
    };
    Some(Plant { place, bit, after: number(after)? })
}

/// `C:D` with C before D.
pub fn restore(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once(':')?;
    let (from, to) = (number(from)?, number(to)?);
    (from > 0 && from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_understood() {
        assert_eq!(until("n:0x10"), Some(Until::Count(16)));
        assert_eq!(until("checkpoint:3"), Some(Until::Checkpoint(3)));
        assert_eq!(until("entry:7"), Some(Until::Entry(7)));
        assert_eq!(until("exit:8"), Some(Until::Exit(8)));
        for bad in ["n", "n:", "exits:1", "entry:x"] {
            assert_eq!(until(bad), None, "{bad}");
        }
    }

    #[test]
    fn plants_are_understood() {
        let memory = Plant { place: PlantPlace::Memory(0x12_3456), bit: 3, after: 2 };
        assert_eq!(plant("memory:0x123456:3@2"), Some(memory));
        let register = Plant { place: PlantPlace::Register("rbx"), bit: 63, after: 1 };
        assert_eq!(plant("register:rbx:63@1"), Some(register));
        let device = Plant { place: PlantPlace::Device("rtc"), bit: 5, after: 0 };
        assert_eq!(plant("device:rtc:5@0"), Some(device));
        for bad in
            ["memory:1:8@1", "memory:1:1", "register::1@1", "device:rtc:64@1", "disk:1:1@1", "memory:1:1:1@1"]
        {
            assert_eq!(plant(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_restore_goes_back() {
        assert_eq!(restore("2:5"), Some((2, 5)));
        for bad in ["5:2", "0:1", "3:3", "3"] {
            assert_eq!(restore(bad), None, "{bad}");
        }
    }
}
