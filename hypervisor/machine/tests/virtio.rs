//! What all virtio devices have in common, seen by a driver: finding them, agreeing on features, queues, interrupts.

mod virtio_support;

use machine::pci::Signal;
use virtio_support::driver::{Driver, EVENTS, INDIRECT, VERSION_1, Way, common};
use virtio_support::{BLOCK, Board, CONSOLE, MAC, NET, READ_ONLY, RNG, SECTORS};

const WAYS: [Way; 3] = [Way::Ports, Way::Memory, Way::Window];
const NO_VECTOR: u32 = 0xffff;

/// The pin of the device goes to this input of the I/O APIC, and to this ISA interrupt.
fn line(device: u8, level: bool) -> Vec<Signal> {
    let isa = [10, 10, 11, 11][usize::from(device - 1) % 4];
    vec![Signal::Line { gsi: isa, level }, Signal::Line { gsi: 16 + device % 4, level }]
}

/// The message that [`Driver::use_messages`] has set up for this vector.
fn message(vector: u64) -> Signal {
    Signal::Message { address: 0xfee0_0000 + vector * 0x1000, data: 0x40 + vector as u32 }
}

/// One block of a disk read: header, data, status.
fn read_request(board: &mut Board, sector: u64) -> [(u64, u32, bool); 3] {
    let mut header = [0; 16];
    header[8..].copy_from_slice(&sector.to_le_bytes());
    let (header, data, status) = (board.put(&header), board.allocate(512), board.put(&[0xee]));
    [(header, 16, false), (data, 512, true), (status, 1, true)]
}

#[test]
fn every_way_to_the_registers_shows_the_same_device() {
    let kinds = [
        (NET, 0x1041, 3),
        (BLOCK, 0x1042, 1),
        (CONSOLE, 0x1043, 2),
        (RNG, 0x1044, 1),
        (READ_ONLY, 0x1042, 1),
    ];
    for (device, id, queues) in kinds {
        let mut seen = Vec::new();
        for way in WAYS {
            let mut board = Board::new();
            let driver = Driver::find(&mut board, device, way);
            assert_eq!(board.config(device, 2, 2), id);
            assert_eq!(board.config(device, 8, 1), 1, "revision of a modern device");
            for kind in 1..=4 {
                assert_ne!(driver.structures[kind].length, 0, "SeaBIOS wants all four structures");
                assert_eq!(driver.structures[kind].bar, u8::from(way == Way::Memory));
            }
            assert_eq!(driver.get(&mut board, common::QUEUES), queues);
            let config: Vec<u32> = (0..64).map(|at| driver.read(&mut board, 4, (at, 1))).collect();
            for at in (0..64).step_by(4) {
                let word = driver.read(&mut board, 4, (at, 4));
                let bytes: Vec<u8> = config[at as usize..at as usize + 4].iter().map(|&b| b as u8).collect();
                assert_eq!(word.to_le_bytes(), bytes[..]);
            }
            let offered = driver.offered(&mut board);
            assert_eq!(offered & (VERSION_1 | INDIRECT | EVENTS), VERSION_1 | INDIRECT | EVENTS);
            seen.push((offered, config));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "device {device}");
        let (offered, config) = &seen[0];
        match device {
            NET => assert_eq!(config[..8], [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0]),
            BLOCK | READ_ONLY => {
                assert_eq!(config[..8], SECTORS.to_le_bytes().map(u32::from));
                assert_eq!(config[20..24], 512u32.to_le_bytes().map(u32::from));
                assert_eq!(offered & 1 << 5 != 0, device == READ_ONLY);
            }
            _ => {}
        }
    }
}

#[test]
fn features_have_to_be_agreed_upon() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, NET, Way::Ports);
    assert_eq!(driver.agree(&mut board, 1 << 5), 3, "a driver of 1.x says so");
    assert_eq!(driver.agree(&mut board, VERSION_1 | 1 << 5), 11);
    driver.set(&mut board, common::STATUS, 0);
    assert_eq!(driver.accept(&mut board, VERSION_1 | 1), 3, "a feature that is not offered");
    assert_eq!(driver.accept(&mut board, VERSION_1 | 1 << 33), 3, "nor is this");
    assert_eq!(driver.accept(&mut board, VERSION_1 | 1 << 18), 3, "CTRL_RX needs CTRL_VQ");
    assert_eq!(driver.accept(&mut board, VERSION_1 | 1 << 18 | 1 << 17), 11);
    driver.set(&mut board, common::DRIVER_SELECT, 0);
    driver.set(&mut board, common::DRIVER_FEATURES, 0);
    assert_eq!(driver.get(&mut board, common::DRIVER_FEATURES), 1 << 18 | 1 << 17, "features stay");
    driver.set(&mut board, common::STATUS, 1);
    assert_eq!(driver.get(&mut board, common::STATUS), 11, "bits of the status only come");
    driver.set(&mut board, common::STATUS, 0x4f);
    assert_eq!(driver.get(&mut board, common::STATUS), 15, "DEVICE_NEEDS_RESET is the device's");
    driver.set(&mut board, common::DEVICE_SELECT, 2);
    assert_eq!(driver.get(&mut board, common::DEVICE_FEATURES), 0, "there are 64");
    driver.set(&mut board, common::STATUS, 0);
    driver.set(&mut board, common::DRIVER_SELECT, 0);
    assert_eq!(driver.get(&mut board, common::DRIVER_FEATURES), 0, "reset");
}

#[test]
fn queue_registers_keep_to_their_rules() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, BLOCK, Way::Ports);
    driver.agree(&mut board, VERSION_1);
    for bad in [0, 3, 100, 257, 512, 0x8000] {
        driver.set(&mut board, common::QUEUE_SIZE, bad);
        assert_eq!(driver.get(&mut board, common::QUEUE_SIZE), 256, "{bad} is no size");
    }
    driver.set(&mut board, common::QUEUE_SIZE, 8);
    driver.set(&mut board, common::DESCRIPTORS, 0x1000);
    driver.set(&mut board, common::QUEUE_ENABLE, 0);
    assert_eq!(driver.get(&mut board, common::QUEUE_ENABLE), 0);
    driver.set(&mut board, common::QUEUE_ENABLE, 1);
    for (register, value) in
        [(common::QUEUE_SIZE, 16), (common::DESCRIPTORS, 0x2000), (common::QUEUE_ENABLE, 0)]
    {
        let before = driver.get(&mut board, register);
        driver.set(&mut board, register, value);
        assert_eq!(driver.get(&mut board, register), before, "an enabled queue stays as it is");
    }
    for vector in [2, 3, 0x1000] {
        driver.set(&mut board, common::QUEUE_VECTOR, vector);
        assert_eq!(driver.get(&mut board, common::QUEUE_VECTOR), NO_VECTOR, "{vector} does not exist");
        driver.set(&mut board, common::CONFIG_VECTOR, vector);
        assert_eq!(driver.get(&mut board, common::CONFIG_VECTOR), NO_VECTOR);
    }
    driver.set(&mut board, common::QUEUE_SELECT, 1);
    assert_eq!(driver.get(&mut board, common::QUEUE_SIZE), 0, "no such queue");
    driver.set(&mut board, common::QUEUE_ENABLE, 1);
    assert_eq!(driver.get(&mut board, common::QUEUE_ENABLE), 0);
    driver.set(&mut board, common::STATUS, 0);
    driver.set(&mut board, common::QUEUE_SELECT, 0);
    assert_eq!(driver.get(&mut board, common::QUEUE_ENABLE), 0, "reset");
    assert_eq!(driver.get(&mut board, common::QUEUE_SIZE), 256);
    assert_eq!(driver.get(&mut board, common::DESCRIPTORS), 0);
}

#[test]
fn the_pin_is_driven_until_the_isr_is_read() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, 0, 8);
    let request = read_request(&mut board, 3);
    driver.send(&mut board, 0, &request);
    assert_eq!(board.take_signals(), line(BLOCK, true));
    assert_ne!(board.config(BLOCK, 6, 2) & 8, 0, "the status register tells");
    assert_eq!(driver.isr(&mut board), 1);
    assert_eq!(board.take_signals(), line(BLOCK, false));
    assert_eq!(driver.isr(&mut board), 0, "reading clears");
    assert_eq!(board.config(BLOCK, 6, 2) & 8, 0);

    board.set_config(BLOCK, 4, 2, 0x407);
    driver.take(&mut board, 0).expect("done");
    driver.send(&mut board, 0, &request);
    assert_eq!(board.take_signals(), [], "INTx is disabled");
    assert_ne!(board.config(BLOCK, 6, 2) & 8, 0, "but waits");
    board.set_config(BLOCK, 4, 2, 7);
    assert_eq!(board.take_signals(), line(BLOCK, true));
    driver.set(&mut board, common::STATUS, 0);
    assert_eq!(board.take_signals(), line(BLOCK, false), "reset lets go");
}

#[test]
fn pins_that_share_a_line_hold_it_together() {
    let mut board = Board::new();
    // Devices 2 and 6 share both lines.
    let mut one = Driver::start(&mut board, READ_ONLY, Way::Ports, 0, 8);
    let net = Driver::start(&mut board, NET, Way::Ports, 1 << 16, 8);
    let request = read_request(&mut board, 3);
    one.send(&mut board, 0, &request);
    assert_eq!(board.take_signals(), line(NET, true));
    board.with(|pci, _| pci.set_link(0, false));
    assert_eq!(board.take_signals(), [], "it is driven already");
    assert_eq!(one.isr(&mut board), 1);
    assert_eq!(board.take_signals(), [], "the other holds it");
    assert_eq!(net.isr(&mut board), 2, "the configuration changed");
    assert_eq!(board.take_signals(), line(NET, false));
}

#[test]
fn messages_go_by_vector_and_wait_while_masked() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, BLOCK, Way::Ports);
    driver.agree(&mut board, VERSION_1);
    driver.queues(&mut board, 8);
    driver.use_messages(&mut board);
    driver.go(&mut board);
    let request = read_request(&mut board, 3);
    let again = |board: &mut Board, driver: &mut Driver| {
        driver.send(board, 0, &request);
        driver.take(board, 0).expect("done");
        board.take_signals()
    };
    assert_eq!(again(&mut board, &mut driver), [message(1)]);
    assert_eq!(driver.isr(&mut board), 0, "no pin, no ISR status");

    let table = driver.base(&mut board, 1);
    board.poke(table + 16 + 12, 4, 1);
    assert_eq!(again(&mut board, &mut driver), [], "the vector is masked");
    assert_eq!(again(&mut board, &mut driver), []);
    assert_eq!(board.peek(table + 0x800, 8), 2, "and pending");
    assert_eq!(board.peek(table + 16, 8), 0xfee0_1000);
    board.poke(table + 16 + 8, 8, 0x99);
    assert_eq!(
        board.take_signals(),
        [Signal::Message { address: 0xfee0_1000, data: 0x99 }],
        "once, as it is now"
    );
    assert_eq!(board.peek(table + 0x800, 4), 0);

    let control = driver.msix + 2;
    board.set_config(BLOCK, control, 2, 0xc000);
    assert_eq!(again(&mut board, &mut driver), [], "the function is masked");
    board.set_config(BLOCK, control, 2, 0x8000);
    assert_eq!(board.take_signals().len(), 1);

    driver.set(&mut board, common::QUEUE_SELECT, 0);
    driver.set(&mut board, common::QUEUE_VECTOR, NO_VECTOR);
    assert_eq!(again(&mut board, &mut driver), [], "no vector, no message");
    driver.set(&mut board, common::QUEUE_VECTOR, 0);
    assert_eq!(again(&mut board, &mut driver), [message(0)]);

    board.set_config(BLOCK, control, 2, 0);
    assert_eq!(again(&mut board, &mut driver), line(BLOCK, true), "back to the pin");
    board.set_config(BLOCK, control, 2, 0x8000);
    assert_eq!(board.take_signals(), line(BLOCK, false), "which messages let go of");
}

#[test]
fn interrupts_come_when_the_driver_asked_for_them() {
    for features in [0, EVENTS] {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, features, 16);
        let request = read_request(&mut board, 3);
        let interrupted = |board: &mut Board, driver: &mut Driver| {
            driver.send(board, 0, &request);
            driver.take(board, 0).expect("done");
            let isr = driver.isr(board);
            board.take_signals();
            isr == 1
        };
        driver.rings[0].want_interrupt(&mut board, None);
        assert!((0..40).all(|_| !interrupted(&mut board, &mut driver)), "none wanted");
        driver.rings[0].want_interrupt(&mut board, Some(0));
        assert!(interrupted(&mut board, &mut driver));
        if features == EVENTS {
            assert!(!interrupted(&mut board, &mut driver), "that was for one");
            driver.rings[0].want_interrupt(&mut board, Some(3));
            let each: Vec<bool> = (0..5).map(|_| interrupted(&mut board, &mut driver)).collect();
            assert_eq!(each, [false, false, false, true, false]);
        } else {
            assert!(interrupted(&mut board, &mut driver), "and each time");
        }
    }
}

#[test]
fn a_batch_is_one_interrupt() {
    for features in [0, EVENTS | INDIRECT] {
        let mut board = Board::new();
        let mut driver = Driver::find(&mut board, BLOCK, Way::Ports);
        driver.agree(&mut board, VERSION_1 | features);
        driver.queues(&mut board, 64);
        driver.use_messages(&mut board);
        driver.go(&mut board);
        for sector in 0..20 {
            let request = read_request(&mut board, sector);
            driver.rings[0].add(&mut board, &request);
        }
        assert!(driver.rings[0].wants_notification(&board));
        driver.notify(&mut board, 0);
        assert_eq!(board.take_signals(), [message(1)]);
        assert_eq!(std::iter::from_fn(|| driver.take(&mut board, 0)).count(), 20);
    }
}

#[test]
fn indices_wrap() {
    for (size, features) in [(4, 0), (256, EVENTS)] {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, RNG, Way::Ports, features, size);
        let buffer = board.allocate(8);
        for round in 0..0x1_0400 {
            driver.send(&mut board, 0, &[(buffer, 8, true)]);
            assert!(driver.take(&mut board, 0).is_some(), "round {round} of size {size}");
            assert_eq!(
                driver.isr(&mut board),
                u8::from(features & EVENTS == 0 || round == 0 || round == 0x1_0000)
            );
            board.signals.clear();
        }
    }
}

#[test]
fn notifications_before_driver_ok_count_after_it() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, RNG, Way::Ports);
    driver.agree(&mut board, VERSION_1);
    driver.queues(&mut board, 8);
    let buffer = board.allocate(16);
    driver.send(&mut board, 0, &[(buffer, 16, true)]);
    assert_eq!(driver.take(&mut board, 0), None, "nothing happens before DRIVER_OK");
    driver.go(&mut board);
    assert!(driver.take(&mut board, 0).is_some());
}

#[test]
fn nothing_happens_without_features_agreed_upon() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, RNG, Way::Ports);
    driver.queues(&mut board, 8);
    driver.set(&mut board, common::STATUS, 7);
    let buffer = board.allocate(16);
    driver.send(&mut board, 0, &[(buffer, 16, true)]);
    assert_eq!(driver.take(&mut board, 0), None);
}

#[test]
fn a_function_that_may_not_master_the_bus_leaves_memory_alone() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, RNG, Way::Ports, 0, 8);
    board.set_config(RNG, 4, 2, 3);
    let buffer = board.allocate(16);
    let before = board.memory.clone();
    let head = driver.rings[0].add(&mut board, &[(buffer, 16, true)]);
    let with_chain = board.memory.clone();
    assert_ne!(before, with_chain);
    driver.notify(&mut board, 0);
    assert_eq!(board.memory, with_chain);
    board.set_config(RNG, 4, 2, 7);
    assert_eq!(driver.take(&mut board, 0), Some((head, 16)), "done as soon as it may");
}

#[test]
fn the_link_is_told_with_a_new_generation() {
    let mut board = Board::new();
    let mut driver = Driver::find(&mut board, NET, Way::Ports);
    driver.agree(&mut board, !0);
    driver.queues(&mut board, 8);
    driver.use_messages(&mut board);
    driver.go(&mut board);
    let generation = driver.get(&mut board, common::GENERATION);
    assert_eq!(driver.read(&mut board, 4, (6, 2)), 1);
    board.with(|pci, _| pci.set_link(0, true));
    assert_eq!(board.take_signals(), [], "it was up");
    board.with(|pci, _| pci.set_link(0, false));
    assert_eq!(board.take_signals(), [message(0)]);
    assert_eq!(driver.read(&mut board, 4, (6, 2)), 0);
    assert_ne!(driver.get(&mut board, common::GENERATION), generation);
    board.with(|pci, _| pci.set_link(1, false));
    assert_eq!(board.take_signals(), [], "no such device");
    driver.set(&mut board, common::STATUS, 0);
    assert_eq!(driver.read(&mut board, 4, (6, 2)), 0, "a reset does not plug the cable in");
    let mac: Vec<u8> = (0..6).map(|at| driver.read(&mut board, 4, (at, 1)) as u8).collect();
    assert_eq!(mac, MAC);
}

#[test]
fn work_beyond_the_limit_waits_for_its_time() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, INDIRECT, 256);
    let header = board.put(&[0; 16]);
    let (data, status) = (board.allocate(1 << 20), board.allocate(1));
    let request = [(header, 16, false), (data, 1 << 20, true), (status, 1, true)];
    for _ in 0..10 {
        driver.rings[0].add(&mut board, &request);
    }
    driver.notify(&mut board, 0);
    let done = |board: &mut Board, driver: &mut Driver| std::iter::from_fn(|| driver.take(board, 0)).count();
    assert_eq!(done(&mut board, &mut driver), 4);
    let due = board.pci.deadline().expect("there is more to do");
    assert!(due > board.now);
    let before = board.now;
    board.pass(due - before - 1);
    assert_eq!(done(&mut board, &mut driver), 0, "not yet");
    board.move_house();
    assert_eq!(board.pci.deadline(), Some(due));
    board.pass(1);
    assert_eq!(done(&mut board, &mut driver), 4);
    board.pass(1_000_000);
    assert_eq!(done(&mut board, &mut driver), 2);
    assert_eq!(board.pci.deadline(), None);
}
