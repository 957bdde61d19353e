//! The PCI bus: configuration space, base address registers, bridges, and who answers which port and address.

mod virtio_support;

use machine::pci::{Device, Pci, Place, SLOTS, Signal};
use proptest::prelude::*;
use virtio_support::driver::{Driver, VERSION_1, Way, common};
use virtio_support::{BLOCK, Board, CONSOLE, NET, READ_ONLY, RNG, devices};

#[test]
fn the_bus_has_what_firmware_expects() {
    let mut board = Board::bare();
    assert_eq!(board.config(0, 0, 4), 0x1237_8086);
    assert_eq!(board.config(0, 0x2c, 4), 0x1100_1af4, "by which SeaBIOS finds fw_cfg");
    assert_eq!(board.config(0, 8, 4) >> 8, 0x06_0000);
    assert_eq!(board.config(1, 0, 4), 0x7000_8086);
    assert_eq!(board.config(1, 8, 4) >> 8, 0x06_0100);
    for device in 7..32 {
        assert_eq!(board.config(device, 0, 4), 0xffff_ffff);
        assert_eq!(board.config(device, 0, 1), 0xff);
        board.set_config(device, 4, 2, 7);
    }
    for device in NET..=READ_ONLY {
        assert_eq!(board.config(device, 0x0e, 1), 0, "one function");
        assert_eq!(board.config(device, 0x3d, 1), 1, "pin A");
    }
    // Other buses and functions, and a mechanism that is off.
    for address in [0x8001_0000, 0x8000_1100, 0x0000_1000] {
        board.out(0xcf8, 4, address);
        assert_eq!(board.with(|pci, _| pci.read_port(0xcfc, 4)), 0xffff_ffff, "{address:#x}");
    }
}

#[test]
fn the_address_register_takes_double_words_alone() {
    let mut board = Board::bare();
    board.out(0xcf8, 4, 0xffff_ffff);
    assert_eq!(board.with(|pci, _| pci.read_port(0xcf8, 4)), 0x80ff_fffc);
    board.out(0xcf8, 1, 0);
    board.out(0xcf8, 2, 0);
    board.out(0xcf9, 1, 0);
    assert_eq!(board.with(|pci, _| pci.read_port(0xcf8, 4)), 0x80ff_fffc);
    assert_eq!(board.with(|pci, _| pci.read_port(0xcf8, 2)), 0xffff);
}

#[test]
fn bytes_and_words_are_parts_of_registers() {
    let mut board = Board::bare();
    assert_eq!(board.config(0, 2, 2), 0x1237);
    assert_eq!(board.config(0, 3, 1), 0x12);
    board.out(0xcf8, 4, 0x8000_0000);
    assert_eq!(board.with(|pci, _| pci.read_port(0xcff, 2)), 0xff12, "nothing beyond the register");
    assert_eq!(board.with(|pci, _| pci.read_port(0xcfd, 4)), 0xff12_3780);
    board.set_config(NET, 0x3c, 1, 0x1ab);
    assert_eq!(board.config(NET, 0x3c, 4), 0x01ab, "the line alone");
    board.set_config(NET, 0x3d, 1, 0xff);
    assert_eq!(board.config(NET, 0x3c, 4), 0x01ab, "the pin is fixed");
    board.set_config(NET, 0x0c, 4, 0xffff_ffff);
    assert_eq!(board.config(NET, 0x0c, 4), 0x0000_ffff);
}

#[test]
fn bridges_keep_what_firmware_writes() {
    let mut board = Board::bare();
    for offset in 0x59..=0x5f {
        assert_eq!(board.config(0, offset, 1), 0);
        board.set_config(0, offset, 1, 0x33);
        assert_eq!(board.config(0, offset, 1), 0x33);
    }
    assert_eq!(board.config(0, 0x58, 1), 0);
    assert_eq!(board.config(1, 0x60, 4), 0x8080_8080);
    board.set_config(1, 0x60, 4, 0xffff_ffff);
    assert_eq!(board.config(1, 0x60, 4), 0x8f8f_8f8f);
    board.set_config(1, 0x61, 1, 0x0b);
    assert_eq!(board.config(1, 0x60, 4), 0x8f8f_0b8f);
    board.with(|pci, _| pci.reset());
    assert_eq!((board.config(0, 0x5c, 4), board.config(1, 0x60, 4)), (0, 0x8080_8080));
}

#[test]
fn base_address_registers_tell_their_size() {
    let mut board = Board::new();
    for device in NET..=READ_ONLY {
        let before: Vec<u32> = (0..6).map(|bar| board.config(device, 0x10 + 4 * bar, 4)).collect();
        for bar in 0..6 {
            board.set_config(device, 0x10 + 4 * bar, 4, 0xffff_ffff);
        }
        let sizes: Vec<u32> = (0..6).map(|bar| board.config(device, 0x10 + 4 * bar, 4)).collect();
        assert_eq!(sizes, [0xffff_ff01, 0xffff_e000, 0, 0, 0, 0]);
        board.set_config(device, 0x30, 4, 0xffff_ffff);
        assert_eq!(board.config(device, 0x30, 4), 0, "no ROM");
        for bar in 0..6 {
            board.set_config(device, 0x10 + 4 * bar, 4, before[usize::from(bar)]);
        }
        let after: Vec<u32> = (0..6).map(|bar| board.config(device, 0x10 + 4 * bar, 4)).collect();
        assert_eq!(after, before);
    }
    assert_eq!(board.pci.find_io(0xc010), Some(Place { slot: 0, bar: 0, offset: 0x10 }));
    assert_eq!(board.pci.find_memory(0xe001_1014), Some(Place { slot: 1, bar: 1, offset: 0x1014 }));
}

#[test]
fn a_function_answers_where_and_when_it_is_told_to() {
    let mut board = Board::bare();
    assert!((0..=0xffff).all(|port| board.pci.find_io(port).is_none()), "nobody before firmware");
    board.set_config(RNG, 0x10, 4, 0x1200);
    board.set_config(RNG, 0x14, 4, 0xfe00_2000);
    assert_eq!(board.pci.find_io(0x1200), None, "addresses alone do not do");
    board.set_config(RNG, 4, 2, 1);
    assert_eq!(board.pci.find_io(0x12ff), Some(Place { slot: 2, bar: 0, offset: 0xff }));
    assert_eq!(board.pci.find_io(0x11ff), None);
    assert_eq!(board.pci.find_io(0x1300), None);
    assert_eq!(board.pci.find_memory(0xfe00_2000), None);
    board.set_config(RNG, 4, 2, 2);
    assert_eq!(board.pci.find_io(0x1200), None);
    assert_eq!(board.pci.find_memory(0xfe00_3fff), Some(Place { slot: 2, bar: 1, offset: 0x1fff }));
    for address in [0xfe00_1fff, 0xfe00_4000, 0x1_fe00_2000, 0, u64::MAX] {
        assert_eq!(board.pci.find_memory(address), None);
    }
    board.set_config(RNG, 4, 2, 3);
    board.set_config(RNG, 0x10, 4, 0x1_1200);
    assert_eq!(board.pci.find_io(0x1200), None, "no processor reaches ports beyond FFFFh");
    board.set_config(RNG, 0x10, 4, 0);
    assert_eq!(board.pci.find_io(0), None, "0 is no address");
    board.set_config(RNG, 0x10, 1, 0xff);
    board.set_config(RNG, 0x11, 1, 0x34);
    assert_eq!(board.config(RNG, 0x10, 4), 0x3401, "byte by byte");
    assert_eq!(board.pci.find_io(0x3400), Some(Place { slot: 2, bar: 0, offset: 0 }));
}

#[test]
fn in_a_conflict_the_first_slot_answers() {
    let mut board = Board::new();
    board.set_config(CONSOLE, 0x10, 4, 0xc100);
    board.set_config(CONSOLE, 0x14, 4, 0xe001_0000);
    assert_eq!(board.pci.find_io(0xc100).map(|place| place.slot), Some(1));
    assert_eq!(board.pci.find_memory(0xe001_0000).map(|place| place.slot), Some(1));
    board.set_config(BLOCK, 4, 2, 0);
    assert_eq!(board.pci.find_io(0xc100).map(|place| place.slot), Some(3));
    assert_eq!(board.pci.find_memory(0xe001_0000).map(|place| place.slot), Some(3));
}

#[test]
fn the_isa_bridge_routes_pins() {
    let mut board = Board::new();
    board.set_config(1, 0x60, 4, 0x8080_8080);
    let driver = Driver::start(&mut board, NET, Way::Ports, 1 << 16, 8);
    board.with(|pci, _| pci.set_link(0, false));
    assert_eq!(board.take_signals(), [Signal::Line { gsi: 18, level: true }]);
    // Device 2 is wired to PIRQB.
    board.set_config(1, 0x61, 1, 5);
    assert_eq!(board.take_signals(), [Signal::Line { gsi: 5, level: true }]);
    board.set_config(1, 0x60, 1, 7);
    assert_eq!(board.take_signals(), [], "not this one");
    board.set_config(1, 0x61, 1, 11);
    let moved = [Signal::Line { gsi: 5, level: false }, Signal::Line { gsi: 11, level: true }];
    assert_eq!(board.take_signals(), moved);
    for taken in [0, 1, 2, 4, 8, 9, 13, 0x80] {
        board.set_config(1, 0x61, 1, 11);
        board.take_signals();
        board.set_config(1, 0x61, 1, taken);
        assert_eq!(board.take_signals(), [Signal::Line { gsi: 11, level: false }], "{taken} is not wired");
    }
    assert_eq!(driver.isr(&mut board), 2);
    assert_eq!(board.take_signals(), [Signal::Line { gsi: 18, level: false }]);
}

#[test]
fn reset_of_the_board_lets_go_of_everything() {
    let mut board = Board::new();
    let fresh = Board::bare().pci.save();
    Driver::start(&mut board, NET, Way::Ports, !0, 8).use_messages(&mut board);
    Driver::start(&mut board, BLOCK, Way::Memory, !0, 8);
    board.with(|pci, _| pci.reset());
    assert_eq!(board.pci.save(), fresh);
    assert_eq!(board.pci.find_io(0xc000), None);
}

#[test]
fn there_are_so_many_slots() {
    let many = vec![Device::Rng { seed: [0; 32] }; SLOTS];
    let mut pci = Pci::new(&many).expect("as many as there are");
    pci.assign();
    let list: Vec<_> = pci.functions().collect();
    assert_eq!(list.len(), SLOTS + 2);
    for (index, info) in list[2..].iter().enumerate() {
        let ports = info.ports.expect("assigned");
        let memory = info.memory.expect("assigned");
        assert_eq!(usize::from(info.device), index + 2);
        assert_eq!(pci.find_io(ports).map(|place| usize::from(place.slot)), Some(index));
        assert_eq!(pci.find_memory(memory.into()).map(|place| usize::from(place.slot)), Some(index));
        assert!((0xe000_0000..0xfec0_0000).contains(&memory) && ports >= 0x1000);
    }
    assert!(Pci::new(&vec![Device::Rng { seed: [0; 32] }; SLOTS + 1]).is_err());
}

#[test]
fn firmware_may_put_devices_elsewhere() {
    for way in [Way::Ports, Way::Memory] {
        let mut board = Board::bare();
        for (index, device) in (NET..=READ_ONLY).enumerate() {
            board.set_config(device, 0x10, 4, 0x1000 + index as u32 * 0x100);
            board.set_config(device, 0x14, 4, 0xfe00_0000 + index as u32 * 0x2000);
            board.set_config(device, 4, 2, 0x103);
        }
        let mut driver = Driver::find(&mut board, RNG, way);
        assert_eq!(driver.agree(&mut board, VERSION_1), 11);
        driver.queues(&mut board, 4);
        board.set_config(RNG, 4, 2, 0x107);
        driver.go(&mut board);
        let at = board.allocate(32);
        let head = driver.send(&mut board, 0, &[(at, 32, true)]);
        assert_eq!(driver.take(&mut board, 0), Some((head, 32)));
        assert_ne!(board.load(at, 32), [0; 32]);
    }
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut board = Board::new();
    let driver = Driver::start(&mut board, NET, Way::Ports, !0, 8);
    driver.use_messages(&mut board);
    let good = board.pci.save();
    assert!(Pci::restore(good.clone()).is_ok());
    let refused = |spoil: &dyn Fn(&mut machine::pci::State)| {
        let mut state = good.clone();
        spoil(&mut state);
        assert_ne!(state, good, "nothing is spoilt");
        Pci::restore(state).expect_err("a state that cannot be")
    };
    refused(&|state| state.address |= 1);
    refused(&|state| state.lines |= 1 << 24);
    refused(&|state| state.host.registers[0] ^= 1);
    refused(&|state| state.isa.registers[0x18] |= 0x40);
    refused(&|state| state.slots[0].header.registers[0] ^= 1 << 16);
    refused(&|state| state.slots[0].header.registers[4] |= 2);
    refused(&|state| state.slots = vec![state.slots[0].clone(); SLOTS + 1]);
    refused(&|state| state.slots[1].vectors.pending |= 4);
    refused(&|state| state.slots[1].vectors.entries[3].data = 1);
    for size in [0, 3, 512, 0xffff] {
        refused(&|state| state.slots[0].transport.queues[0].size = size);
    }
    refused(&|state| state.slots[0].transport.queues[1].vector = 4);
    refused(&|state| state.slots[0].transport.vector = 0xfffe);
    refused(&|state| state.slots[0].transport.kicked = 8);
    refused(&|state| state.slots[1].transport.queues[1].enabled = true);
    refused(&|state| state.slots[0].transport.features |= 1);
    refused(&|state| {
        let machine::virtio::Model::Net(net) = &mut state.slots[0].model else { panic!("a network card") };
        net.unicast.count = 33;
    });
    refused(&|state| {
        let machine::virtio::Model::Block(block) = &mut state.slots[1].model else { panic!("a disk") };
        block.sectors = u64::MAX;
    });
}

/// Registers whose writes have effects elsewhere than in themselves are written by the other tests.
#[derive(Clone, Debug)]
enum Step {
    Address(u32),
    Read(u16, u8),
    Write(u16, u8, u32),
    Io(u16, u8, Option<u64>),
    Memory(u64, u8, Option<u64>),
}

fn steps() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(1u8), Just(2), Just(4)];
    let value = prop_oneof![any::<u32>(), 0u32..8, Just(!0), any::<u32>().prop_map(|v| v & 0xf1ff_ff07)];
    let device = (0u32..8, 0u32..64).prop_map(|(device, register)| 1 << 31 | device << 11 | register << 2);
    let wide = prop_oneof![Just(1u8), Just(2), Just(4), Just(8)];
    prop_oneof![
        prop_oneof![4 => device, 1 => any::<u32>()].prop_map(Step::Address),
        (0xcf8u16..0xd00, size.clone()).prop_map(|(port, size)| Step::Read(port, size)),
        (0xcf8u16..0xd00, size.clone(), value).prop_map(|(port, size, value)| Step::Write(port, size, value)),
        (0xc000u16..0xc600, size, any::<Option<u64>>())
            .prop_map(|(port, size, value)| Step::Io(port, size, value)),
        (0u64..5, 0u64..0x2000, wide, any::<Option<u64>>()).prop_map(|(n, at, size, value)| Step::Memory(
            0xe000_0000 + n * 0x1_0000 + at,
            size,
            value
        )),
    ]
}

/// Does a step; answers what was read.
fn act(board: &mut Board, step: &Step) -> u64 {
    board.with(|pci, ctx| match *step {
        Step::Address(address) => {
            pci.write_port(0xcf8, 4, address, ctx);
            0
        }
        Step::Read(port, size) => pci.read_port(port, size).into(),
        Step::Write(port, size, value) => {
            pci.write_port(port, size, value, ctx);
            0
        }
        Step::Io(port, size, value) => match (pci.find_io(port), value) {
            (Some(place), None) => pci.read(place, size),
            (Some(place), Some(value)) => {
                pci.write(place, size, value, ctx);
                1
            }
            (None, _) => 2,
        },
        Step::Memory(address, size, value) => match (pci.find_memory(address), value) {
            (Some(place), None) => pci.read(place, size),
            (Some(place), Some(value)) => {
                pci.write(place, size, value, ctx);
                1
            }
            (None, _) => 2,
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is written: what identifies a function stays, a state that was saved can be, and goes on alike.
    #[test]
    fn accesses_at_random_do_no_harm(
        before in prop::collection::vec(steps(), 0..200),
        after in prop::collection::vec(steps(), 0..200),
    ) {
        let mut board = Board::new();
        for step in &before {
            let value = act(&mut board, step);
            if let Step::Read(_, size @ (1 | 2)) = step {
                prop_assert_eq!(value >> (8 * size), 0);
            }
        }
        let mut moved = board.clone();
        moved.move_house();
        for step in &after {
            prop_assert_eq!(act(&mut board, step), act(&mut moved, step));
        }
        prop_assert!(board.everything() == moved.everything());
        let fresh = Pci::new(&devices()).expect("devices that can be").save();
        for (now, fresh) in board.pci.save().slots.iter().zip(&fresh.slots) {
            for register in [0, 2, 6, 7, 8, 9, 11, 12, 13] {
                prop_assert_eq!(now.header.registers[register], fresh.header.registers[register]);
            }
        }
    }
}

#[test]
fn configuration_space_reaches_a_device_that_answers_nowhere() {
    let mut board = Board::bare();
    let mut driver = Driver::find(&mut board, RNG, Way::Window);
    board.set_config(RNG, 4, 2, 4);
    assert_eq!(driver.agree(&mut board, VERSION_1), 11);
    driver.queues(&mut board, 4);
    driver.go(&mut board);
    let at = board.allocate(32);
    driver.send(&mut board, 0, &[(at, 32, true)]);
    assert!(driver.take(&mut board, 0).is_some());
    assert_eq!(driver.isr(&mut board), 1);
    assert_eq!(driver.get(&mut board, common::STATUS), 15);
}
