//! The debug registers' rules (SDM vol. 3B, "Debug Registers"): what a MOV to one stores, and when it faults.

use super::registers::cr4;

/// Bits of DR6.
#[allow(missing_docs)]
pub mod dr6 {
    /// B0 to B3: a breakpoint's condition was met.
    pub const BREAKPOINTS: u64 = 0xf;
    pub const BD: u64 = 1 << 13;
    pub const BS: u64 = 1 << 14;
    pub const BT: u64 = 1 << 15;
    /// What always reads as one.
    pub const ONES: u64 = 0xffff_0ff0;
    /// What can be written.
    pub const WRITABLE: u64 = BREAKPOINTS | BD | BS | BT;
}

/// Bits of DR7.
#[allow(missing_docs)]
pub mod dr7 {
    /// L0 to G3: any breakpoint is enabled.
    pub const ENABLES: u64 = 0xff;
    /// General detect: the next access of a debug register traps.
    pub const GD: u64 = 1 << 13;
    /// What always reads as one; the value after reset.
    pub const ONES: u64 = 1 << 10;
    /// What can be written: enables, LE, GE, GD, R/W and LEN.
    pub const WRITABLE: u64 = 0xffff_23ff;
}

/// Why MOV to or from a debug register faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #GP(0).
    GeneralProtection,
    /// #UD: DR4 or DR5 with CR4.DE.
    InvalidOpcode,
    /// #DB with DR6.BD: the registers are guarded by DR7.GD.
    GeneralDetect,
}

/// Which register an access of `register` reaches: DR4 and DR5 are DR6 and DR7.
///
/// # Errors
/// The access faults. `privilege` is the current privilege level, `seven` DR7.
pub const fn resolve(register: u8, privilege: u8, control: u64, seven: u64) -> Result<u8, Fault> {
    let alias = matches!(register, 4 | 5);
    if alias && control & cr4::DE != 0 {
        Err(Fault::InvalidOpcode)
    } else if privilege != 0 {
        Err(Fault::GeneralProtection)
    } else if seven & dr7::GD != 0 {
        Err(Fault::GeneralDetect)
    } else {
        Ok(if alias { register + 2 } else { register & 7 })
    }
}

/// What DR6 or DR7 holds after a write; other registers hold what is written.
///
/// # Errors
/// The upper half of DR6 or DR7 is not zero.
pub const fn stored(register: u8, value: u64) -> Result<u64, Fault> {
    match register {
        6 | 7 if value >> 32 != 0 => Err(Fault::GeneralProtection),
        6 => Ok(value & dr6::WRITABLE | dr6::ONES),
        7 => Ok(value & dr7::WRITABLE | dr7::ONES),
        _ => Ok(value),
    }
}

/// DR6 once a debug exception with these causes has been delivered: the breakpoints' bits are new, the others stay until
/// software clears them.
pub const fn after_exception(six: u64, causes: u64) -> u64 {
    six & !dr6::BREAKPOINTS & dr6::WRITABLE | causes & dr6::WRITABLE | dr6::ONES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_fault_as_the_manual_says() {
        assert_eq!(resolve(4, 0, 0, dr7::ONES), Ok(6));
        assert_eq!(resolve(5, 0, 0, dr7::ONES), Ok(7));
        assert_eq!(resolve(3, 0, cr4::DE, dr7::ONES), Ok(3));
        assert_eq!(resolve(4, 0, cr4::DE, dr7::ONES), Err(Fault::InvalidOpcode));
        assert_eq!(resolve(0, 3, 0, dr7::GD), Err(Fault::GeneralProtection));
        assert_eq!(resolve(0, 0, 0, dr7::GD), Err(Fault::GeneralDetect));
    }

    #[test]
    fn fixed_bits_stay_fixed() {
        assert_eq!(stored(6, 0), Ok(0xffff_0ff0));
        assert_eq!(stored(6, 0xffff_ffff), Ok(0xffff_effe | 1));
        assert_eq!(stored(7, 0), Ok(0x400));
        assert_eq!(stored(7, 0xffff_ffff), Ok(0xffff_27ff));
        assert_eq!(stored(6, 1 << 32), Err(Fault::GeneralProtection));
        assert_eq!(stored(7, 1 << 63), Err(Fault::GeneralProtection));
        assert_eq!(stored(0, u64::MAX), Ok(u64::MAX));
    }

    #[test]
    fn an_exception_replaces_the_breakpoints_and_keeps_the_rest() {
        assert_eq!(after_exception(0xffff_0ff3, dr6::BS), 0xffff_4ff0);
        assert_eq!(after_exception(0xffff_4ff0, 4), 0xffff_4ff4);
        assert_eq!(after_exception(0, 0x1_0000 | 1 << 12), 0xffff_0ff0, "what no DR6 has is dropped");
    }
}
