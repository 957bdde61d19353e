//! Enumeration: every function that firmware made reachable.

use crate::{Address, Bridge, ConfigSpace, Function, HeaderKind, register};

/// What a walk did, beside the functions it reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Functions reported.
    pub functions: usize,
    /// Buses looked at.
    pub buses: usize,
    /// Bridges whose secondary bus was not followed: not configured by firmware, or pointing at a bus that another
    /// bridge leads to or that lies outside the segment's buses.
    pub bridges_not_followed: usize,
}

/// Calls `found` for every function of `segment` that can be reached from bus `first_bus`, by bus number found, device
/// and function. Firmware's bus numbers are used as they are; nothing is written.
///
/// Each bus is visited once however the bridges point, so a broken machine cannot make the walk endless: at most 256
/// buses of 32 devices of 8 functions.
pub fn walk(
    config: &(impl ConfigSpace + ?Sized),
    segment: u16,
    first_bus: u8,
    last_bus: u8,
    found: &mut dyn FnMut(Function),
) -> Walk {
    let mut state =
        State { seen: BusSet::default(), todo: BusSet::default(), last_bus, walk: Walk::default() };
    state.push(first_bus);
    // A multifunction host bridge has one function per root bus (the convention firmware of several-root PCs follows).
    if let Some(host) = Address::new(segment, first_bus, 0, 0)
        && first_bus == 0
        && is_multifunction(config, host)
    {
        for function in 1..Address::FUNCTIONS {
            let present = host.with_function(function).and_then(|a| Function::read(config, a));
            if present.is_some_and(|f| f.class.base == 0x06 && f.class.sub == 0x00) {
                state.push(function);
            }
        }
    }
    while let Some(bus) = state.todo.pop_first() {
        state.walk.buses += 1;
        walk_bus(config, segment, bus, &mut state, found);
    }
    state.walk
}

struct State {
    seen: BusSet,
    todo: BusSet,
    last_bus: u8,
    walk: Walk,
}

impl State {
    /// Plans a visit of `bus`; false if there was or will be one already, or it is beyond the last.
    fn push(&mut self, bus: u8) -> bool {
        if bus > self.last_bus || !self.seen.insert(bus) {
            return false;
        }
        self.todo.insert(bus)
    }

    fn follow(&mut self, bridge: Bridge) {
        if bridge.secondary == 0 || !self.push(bridge.secondary) {
            self.walk.bridges_not_followed += 1;
        }
    }
}

fn walk_bus(
    config: &(impl ConfigSpace + ?Sized),
    segment: u16,
    bus: u8,
    state: &mut State,
    found: &mut dyn FnMut(Function),
) {
    for device in 0..Address::DEVICES {
        let Some(first) = Address::new(segment, bus, device, 0) else { continue };
        // Function 0 must exist if any does (PCI Local Bus, 3.2.2.3.4).
        if Function::read(config, first).is_none() {
            continue;
        }
        let functions = if is_multifunction(config, first) { Address::FUNCTIONS } else { 1 };
        for number in 0..functions {
            let Some(function) = first.with_function(number).and_then(|a| Function::read(config, a)) else {
                continue;
            };
            state.walk.functions += 1;
            if let HeaderKind::PciBridge(bridge) = function.kind {
                state.follow(bridge);
            }
            found(function);
        }
    }
}

fn is_multifunction(config: &(impl ConfigSpace + ?Sized), address: Address) -> bool {
    config.read_u16(address, register::VENDOR) != 0xffff
        && config.read_u8(address, register::HEADER_TYPE) & 0x80 != 0
}

/// A set of bus numbers.
#[derive(Default)]
struct BusSet([u64; 4]);

impl BusSet {
    /// Adds; false if it was in already.
    fn insert(&mut self, bus: u8) -> bool {
        let (word, bit) = (usize::from(bus / 64), 1u64 << (bus % 64));
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    /// Takes the lowest.
    fn pop_first(&mut self) -> Option<u8> {
        let (index, word) = self.0.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        Some(index as u8 * 64 + bit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeBus;
    use std::{string::String, string::ToString, vec, vec::Vec};

    fn names(bus: &FakeBus) -> (Vec<String>, Walk) {
        let mut names = vec![];
        let walk = walk(bus, 0, 0, 255, &mut |f| names.push(f.address.to_string()));
        (names, walk)
    }

    #[test]
    fn finds_functions_behind_bridges() {
        let mut bus = FakeBus::new();
        bus.endpoint(0, 0, 0, 0x8086, 0x1237);
        let nested = bus.bridge(0, 2, 0, 1, 2);
        assert_eq!(nested.bus, 0);
        bus.endpoint(1, 0, 0, 0x8086, 0x100e);
        bus.bridge(1, 5, 0, 2, 2);
        bus.endpoint(2, 31, 0, 0x8086, 0x10d3);
        let (found, walk) = names(&bus);
        assert_eq!(found, ["0000:00:00.0", "0000:00:02.0", "0000:01:00.0", "0000:01:05.0", "0000:02:1f.0"]);
        assert_eq!(walk, Walk { functions: 5, buses: 3, bridges_not_followed: 0 });
    }

    #[test]
    fn functions_above_zero_only_on_multifunction_devices() {
        let mut bus = FakeBus::new();
        bus.endpoint(0, 1, 0, 0x8086, 1);
        bus.endpoint(0, 1, 3, 0x8086, 2);
        bus.endpoint(0, 4, 5, 0x8086, 3);
        assert_eq!(names(&bus).0, ["0000:00:01.0"]);
        bus.multifunction(0, 1);
        assert_eq!(names(&bus).0, ["0000:00:01.0", "0000:00:01.3"]);
    }

    #[test]
    fn a_loop_of_bridges_ends() {
        let mut bus = FakeBus::new();
        bus.bridge(0, 1, 0, 1, 1);
        bus.bridge(1, 1, 0, 1, 1);
        bus.bridge(1, 2, 0, 0, 0);
        let (found, walk) = names(&bus);
        assert_eq!(found.len(), 3);
        assert_eq!(walk.bridges_not_followed, 2);
    }

    #[test]
    fn buses_beyond_the_window_are_not_touched() {
        let mut bus = FakeBus::new();
        bus.bridge(0, 1, 0, 9, 9);
        bus.endpoint(9, 0, 0, 1, 2);
        let walk = walk(&bus, 0, 0, 8, &mut |_| {});
        assert_eq!(walk, Walk { functions: 1, buses: 1, bridges_not_followed: 1 });
    }

    #[test]
    fn several_root_buses_of_a_multifunction_host_bridge() {
        let mut bus = FakeBus::new();
        for function in [0, 3] {
            let a = bus.endpoint(0, 0, function, 0x8086, 0x7190);
            bus.set_u32(a, register::REVISION, 0x0600_0000);
        }
        bus.multifunction(0, 0);
        bus.endpoint(3, 1, 0, 0x8086, 0x100e);
        let (found, walk) = names(&bus);
        assert_eq!(found, ["0000:00:00.0", "0000:00:00.3", "0000:03:01.0"]);
        assert_eq!(walk.buses, 2);
    }

    #[test]
    fn all_ones_everywhere_is_an_empty_machine() {
        assert_eq!(
            names(&FakeBus::new()),
            (vec![], Walk { functions: 0, buses: 1, bridges_not_followed: 0 })
        );
    }
}
