//! The small devices against their data sheets, and the clocks of the board against each other.

use machine::devices::{Keyboard, Pit, Pm, Rtc, Uart};
use machine::interrupts::Interrupts;
use machine::output::Power;

const SECOND: u64 = 1_000_000_000;

mod uart {
    use super::*;

    const DATA: u16 = 0;
    const IER: u16 = 1;
    const IIR: u16 = 2;
    const FCR: u16 = 2;
    const LCR: u16 = 3;
    const MCR: u16 = 4;
    const LSR: u16 = 5;
    const MSR: u16 = 6;
    /// OUT2: without it there is no interrupt.
    const OUT2: u8 = 0x08;

    fn open() -> Uart {
        let mut uart = Uart::new();
        uart.write(MCR, OUT2, 0);
        uart
    }

    #[test]
    fn registers_keep_what_they_have() {
        let mut uart = Uart::new();
        for (register, kept) in [(IER, 0x0f), (LCR, 0xff), (7, 0xff), (LCR, 0x03), (MCR, 0x1f)] {
            let value = if register == LCR { kept } else { 0xff };
            uart.write(register, value, 0);
            assert_eq!(uart.read(register, 0), kept, "register {register}");
            if register == LCR && kept == 0xff {
                uart.write(LCR, 0, 0);
            }
        }
        uart.write(LCR, 0x80, 0);
        uart.write(0, 0x34, 0);
        uart.write(1, 0x12, 0);
        assert_eq!((uart.read(0, 0), uart.read(1, 0)), (0x34, 0x12), "divisor");
        uart.write(LCR, 0, 0);
        assert_eq!(uart.read(IER, 0), 0x0f, "the divisor is elsewhere");
        assert_eq!(uart.read(LSR, 0), 0x60);
        uart.write(LSR, 0xff, 0);
        assert_eq!(uart.read(LSR, 0), 0x60);
    }

    #[test]
    fn a_byte_leaves_at_once_and_the_transmitter_is_empty() {
        let mut uart = open();
        assert_eq!(uart.write(DATA, b'x', 0), Some(b'x'));
        assert_eq!(uart.read(LSR, 0), 0x60);
        assert!(!uart.irq());
        uart.write(IER, 2, 0);
        assert!(uart.irq(), "enabling it while the transmitter is empty interrupts");
        assert_eq!(uart.read(IIR, 0), 0x02);
        assert!(!uart.irq(), "reading the source takes it");
        assert_eq!(uart.read(IIR, 0), 0x01);
        uart.write(IER, 2, 0);
        assert!(!uart.irq(), "it was enabled already");
        uart.write(DATA, b'y', 0);
        assert!(uart.irq(), "empty again");
        uart.write(IER, 0, 0);
        assert!(!uart.irq());
        uart.write(IER, 2, 0);
        assert_eq!(uart.read(IIR, 0), 0x02);
    }

    #[test]
    fn without_fifos_there_is_one_byte() {
        let mut uart = open();
        uart.write(IER, 1, 0);
        assert_eq!((uart.room(), uart.receive(b"ab", 0)), (1, 1));
        assert!(uart.irq());
        assert_eq!((uart.read(IIR, 0), uart.read(LSR, 0)), (0x04, 0x61));
        assert_eq!(uart.deadline(), None, "a time-out is the FIFOs'");
        assert_eq!(uart.read(DATA, 0), b'a');
        assert!(!uart.irq());
        assert_eq!(uart.read(DATA, 0), 0, "empty");
    }

    #[test]
    fn the_trigger_level_interrupts_and_fewer_bytes_do_after_a_time_out() {
        let mut uart = open();
        uart.write(LCR, 0x03, 0);
        uart.write(FCR, 0x81, 0);
        uart.write(IER, 1, 0);
        assert_eq!(uart.receive(&[7; 7], 1000), 7);
        assert!(!uart.irq());
        // 9600 baud (divisor 12), 10 bits a character, 4 characters.
        let timeout = 1000 + 4 * 10 * 12 * 16 * SECOND / 1_843_200;
        assert!(uart.deadline().is_some_and(|at| at.abs_diff(timeout) < 10), "{:?}", uart.deadline());
        uart.receive(&[8], 2000);
        assert_eq!(uart.read(IIR, 2000), 0xc4, "8 bytes: the level");
        uart.read(DATA, 3000);
        assert!(!uart.irq());
        let at = uart.deadline().expect("bytes wait");
        uart.advance(at - 1);
        assert!(!uart.irq());
        uart.advance(at);
        assert_eq!((uart.irq(), uart.read(IIR, at)), (true, 0xcc));
        uart.read(DATA, at);
        assert!(!uart.irq(), "a read restarts the time-out");
        for _ in 0..6 {
            uart.read(DATA, at);
        }
        assert_eq!(uart.deadline(), None, "nothing waits");
        uart.receive(&[1], at);
        let at = uart.deadline().expect("a byte waits");
        assert_eq!(uart.read(IIR, at), 0xcc, "an access sees what nobody has told of");
    }

    #[test]
    fn the_fifo_takes_sixteen_bytes_in_order() {
        let mut uart = open();
        uart.write(FCR, 0xc1, 0);
        let bytes: Vec<u8> = (0..20).collect();
        assert_eq!(uart.receive(&bytes, 0), 16);
        assert_eq!(uart.room(), 0);
        assert_eq!(uart.read(LSR, 0) & 2, 0, "the rest waits outside: no overrun");
        for byte in 0..16 {
            assert_eq!(uart.read(DATA, 0), byte);
        }
        uart.receive(&bytes, 0);
        uart.write(FCR, 0xc3, 0);
        assert_eq!((uart.room(), uart.read(LSR, 0)), (16, 0x60), "cleared");
        uart.receive(&bytes, 0);
        uart.write(FCR, 0, 0);
        assert_eq!(uart.room(), 1, "switching the FIFOs off clears them");
    }

    #[test]
    fn the_loop_sends_to_itself_and_overruns() {
        let mut uart = open();
        uart.write(MCR, 0x1a, 0);
        assert_eq!(uart.read(MSR, 0) & 0xf0, 0x90, "OUT2 is DCD, RTS is CTS: what Linux looks for");
        uart.write(IER, 0x05, 0);
        assert_eq!(uart.write(DATA, b'l', 0), None);
        assert_eq!((uart.room(), uart.receive(b"x", 0)), (0, 0), "the line is not connected");
        assert!(!uart.irq(), "nor the interrupt");
        uart.write(DATA, b'm', 0);
        assert_eq!(uart.read(IIR, 0), 0x06, "line status comes first");
        assert_eq!(uart.read(LSR, 0), 0x63, "overrun");
        assert_eq!(uart.read(LSR, 0), 0x61, "reading takes it");
        assert_eq!(uart.read(DATA, 0), b'l');
    }

    #[test]
    fn modem_lines_are_noted_when_they_change() {
        let mut uart = open();
        assert_eq!(uart.read(MSR, 0), 0xb0, "a terminal is there");
        uart.write(IER, 8, 0);
        uart.write(MCR, 0x14, 0);
        assert_eq!(uart.read(IIR, 0), 0x00);
        assert_eq!(uart.read(MSR, 0), 0x4b, "CTS, DSR and DCD fell; RI rose, which is not noted");
        assert_eq!(uart.read(IIR, 0), 0x01);
        uart.write(MCR, 0x10, 0);
        assert_eq!(uart.read(MSR, 0), 0x04, "RI fell");
        uart.write(MCR, OUT2, 0);
        assert!(uart.irq());
        assert_eq!(uart.read(MSR, 0), 0xbb);
        assert!(!uart.irq());
    }
}

mod pit {
    use super::*;

    const CONTROL: u16 = 3;
    const HZ: u64 = 1_193_182;

    /// The first instant of this tick.
    fn at(tick: u64) -> u64 {
        machine::clock::ticks::instant_of::<1_193_182>(tick)
    }

    fn program(pit: &mut Pit, channel: u16, mode: u8, count: u16, now: u64) {
        pit.write(CONTROL, (channel as u8) << 6 | 0x30 | mode << 1, now);
        pit.write(channel, count as u8, now);
        pit.write(channel, (count >> 8) as u8, now);
    }

    fn count(pit: &mut Pit, channel: u16, now: u64) -> u16 {
        pit.write(CONTROL, (channel as u8) << 6, now);
        u16::from_le_bytes([pit.read(channel, now), pit.read(channel, now)])
    }

    fn status(pit: &mut Pit, channel: u16, now: u64) -> u8 {
        pit.write(CONTROL, 0xe0 | 2 << channel, now);
        pit.read(channel, now)
    }

    #[test]
    fn mode_0_interrupts_once_at_the_terminal_count() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 0, 1000, 0);
        assert_eq!(status(&mut pit, 0, 0), 0x70, "output low, count not yet loaded");
        assert_eq!(status(&mut pit, 0, at(1)), 0x30);
        assert_eq!(count(&mut pit, 0, at(101)), 900);
        assert_eq!(pit.deadline(), Some(at(1001)), "N + 1 clocks after the write");
        assert_eq!(pit.advance(at(1001) - 1), 0);
        assert_eq!(pit.advance(at(1001)), 1);
        assert_eq!(status(&mut pit, 0, at(1001)), 0xb0);
        assert_eq!(count(&mut pit, 0, at(1002)), 0xffff, "it counts on");
        assert_eq!((pit.deadline(), pit.advance(at(1_000_000))), (None, 0));
    }

    #[test]
    fn mode_0_stops_at_the_first_byte_of_a_new_count() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 0, 1000, 0);
        pit.write(0, 100, at(500));
        assert_eq!((pit.deadline(), pit.advance(at(2000))), (None, 0));
        pit.write(0, 0, at(2000));
        assert_eq!(pit.deadline(), Some(at(2101)));
    }

    #[test]
    fn mode_2_interrupts_at_each_period_without_drift() {
        let mut pit = Pit::new();
        // What Linux programs for 1000 Hz.
        program(&mut pit, 0, 2, 1193, 0);
        for period in 1..2000 {
            let deadline = pit.deadline().expect("periodic");
            assert_eq!(deadline, at(1 + 1193 * period));
            assert_eq!(pit.advance(deadline), 1);
        }
        assert_eq!(pit.advance(at(1 + 1193 * 5000)), 3001, "a long jump: all of them");
        assert_eq!(count(&mut pit, 0, at(1 + 1193 * 5000)), 1193);
        assert_eq!(count(&mut pit, 0, at(1193 * 5001)), 1);
        assert_eq!(status(&mut pit, 0, at(1193 * 5001)), 0x34, "low for one clock");
    }

    #[test]
    fn a_new_period_begins_when_the_old_one_ends() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 2, 1000, 0);
        pit.write(0, 0xf4, at(300));
        pit.write(0, 0x01, at(300));
        assert_eq!(status(&mut pit, 0, at(400)) & 0x40, 0x40, "null count: not loaded yet");
        assert_eq!(pit.advance(at(1001)), 1);
        assert_eq!(pit.deadline(), Some(at(1501)));
        assert_eq!(pit.advance(at(2001)), 2);
    }

    #[test]
    fn mode_3_is_a_square_wave() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 3, 1001, 0);
        assert_eq!(status(&mut pit, 0, at(1)), 0xb6);
        assert_eq!(status(&mut pit, 0, at(501)), 0xb6, "odd counts: high for (N + 1) / 2");
        assert_eq!(status(&mut pit, 0, at(502)), 0x36);
        assert_eq!(status(&mut pit, 0, at(1001)), 0x36);
        assert_eq!(pit.advance(at(1002)), 1);
        assert_eq!(count(&mut pit, 0, at(1002)), 1000);
        assert_eq!(count(&mut pit, 0, at(1003)), 998, "by two");
        program(&mut pit, 0, 3, 0, at(2000));
        pit.advance(at(2000));
        assert_eq!(pit.deadline(), Some(at(2001 + 65_536)), "0 is 65536");
    }

    #[test]
    fn mode_4_strobes_once() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 4, 10, 0);
        assert_eq!(pit.advance(at(11)), 0);
        assert_eq!(status(&mut pit, 0, at(10)), 0xb8);
        assert_eq!(status(&mut pit, 0, at(11)), 0x38);
        assert_eq!(pit.deadline(), Some(at(12)));
        assert_eq!(pit.advance(at(12)), 1);
        assert_eq!(pit.deadline(), None);
    }

    #[test]
    fn the_gate_of_counter_2_starts_stops_and_triggers() {
        let mut pit = Pit::new();
        let out = |pit: &mut Pit, now| pit.read_control(now) & 0x20 != 0;
        program(&mut pit, 2, 0, 1000, 0);
        assert_eq!(count(&mut pit, 2, at(500)), 1000, "the gate is low");
        pit.write_control(1, at(500));
        assert_eq!(count(&mut pit, 2, at(600)), 900);
        pit.write_control(0, at(600));
        assert_eq!(count(&mut pit, 2, at(700)), 900);
        pit.write_control(1, at(700));
        assert!(!out(&mut pit, at(1599)));
        assert!(out(&mut pit, at(1600)));
        pit.write_control(0, at(1600));

        program(&mut pit, 2, 1, 50, at(2000));
        assert!(out(&mut pit, at(2500)), "one-shot: waits for the gate");
        pit.write_control(1, at(3000));
        assert!(!out(&mut pit, at(3001)) && !out(&mut pit, at(3050)));
        assert!(out(&mut pit, at(3051)));
        pit.write_control(0, at(3060));
        pit.write_control(1, at(3070));
        pit.write_control(0, at(3080));
        pit.write_control(1, at(3090));
        assert!(!out(&mut pit, at(3140)), "triggered again");
        assert!(out(&mut pit, at(3141)));

        program(&mut pit, 2, 3, 100, at(4000));
        assert!(!out(&mut pit, at(4060)));
        pit.write_control(0, at(4060));
        assert!(out(&mut pit, at(4060)), "a low gate sets the output");
        pit.write_control(1, at(5000));
        assert_eq!(count(&mut pit, 2, at(5001)), 100, "and its rise begins anew");

        program(&mut pit, 2, 5, 20, at(6000));
        pit.write_control(0, at(6001));
        pit.write_control(1, at(6002));
        assert!(out(&mut pit, at(6022)) && !out(&mut pit, at(6023)) && out(&mut pit, at(6024)), "strobe");
    }

    #[test]
    fn latches_hold_until_they_are_read() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 2, 1000, 0);
        pit.write(CONTROL, 0, at(101));
        pit.write(CONTROL, 0, at(201));
        assert_eq!(pit.read(0, at(301)), (900 & 0xff) as u8, "the second latch was ignored");
        assert_eq!(pit.read(0, at(301)), 3);
        assert_eq!(pit.read(0, at(401)), (600 & 0xff) as u8, "live again");
        assert_eq!(pit.read(0, at(401)), 2);
        // Read-back of status and count: status comes first.
        pit.write(CONTROL, 0xc2, at(501));
        assert_eq!(pit.read(0, at(901)), 0xb4);
        assert_eq!(u16::from_le_bytes([pit.read(0, at(901)), pit.read(0, at(901))]), 500);
        pit.write(CONTROL, 0xc8, at(901));
        assert_eq!(pit.read(0, at(901)), (100 & 0xff) as u8, "another counter was named");
    }

    #[test]
    fn single_bytes_and_decimal_counts() {
        let mut pit = Pit::new();
        pit.write(CONTROL, 0x14, 0);
        pit.write(0, 200, 0);
        assert_eq!(pit.deadline(), Some(at(201)));
        assert_eq!((pit.read(0, at(51)), pit.read(0, at(51))), (150, 150));
        pit.write(CONTROL, 0x24, 0);
        pit.write(0, 2, 0);
        assert_eq!(pit.deadline(), Some(at(513)));
        pit.write(CONTROL, 0x35, at(1000));
        pit.write(0, 0x00, at(1000));
        pit.write(0, 0x10, at(1000));
        pit.advance(at(1000));
        assert_eq!(count(&mut pit, 0, at(1002)), 0x0999);
        assert_eq!(pit.deadline(), Some(at(2001)));
        pit.write(CONTROL, 0x35, at(3000));
        pit.write(0, 0, at(3000));
        pit.write(0, 0, at(3000));
        pit.advance(at(3000));
        assert_eq!(pit.deadline(), Some(at(13_001)), "0 is 10000");
        assert_eq!(count(&mut pit, 0, at(3001)), 0);
    }

    #[test]
    fn refresh_toggles_every_15_microseconds() {
        let mut pit = Pit::new();
        let mut toggles = 0;
        let mut last = pit.read_control(0) & 0x10;
        for microsecond in 1..=1000 {
            let bit = pit.read_control(microsecond * 1000) & 0x10;
            toggles += u32::from(bit != last);
            last = bit;
        }
        assert_eq!(toggles, 66);
        pit.write_control(0xff, 0);
        assert_eq!(pit.read_control(0) & 0x0f, 0x0f);
    }

    #[test]
    fn a_period_that_no_processor_could_serve_is_told_less_often() {
        let mut pit = Pit::new();
        program(&mut pit, 0, 2, 1, 0);
        let (mut now, mut calls, mut edges) = (0, 0_u64, 0_u64);
        while now < SECOND / 1000 {
            now = pit.deadline().expect("periodic");
            edges += u64::from(pit.advance(now));
            calls += 1;
        }
        assert!((90..110).contains(&calls), "{calls} in a millisecond");
        assert!(edges.abs_diff(HZ / 2000) < 8, "{edges}: a count of 1 is 2");
    }
}

mod pm {
    use super::*;

    fn word(pm: &mut Pm, offset: u16, now: u64) -> u16 {
        u16::from_le_bytes([pm.read(offset, now), pm.read(offset + 1, now)])
    }

    #[test]
    fn the_power_button_raises_the_sci_until_it_is_cleared() {
        let mut pm = Pm::new();
        pm.power_button();
        assert!(!pm.irq(), "not enabled");
        assert_eq!(word(&mut pm, 0, 0), 0x100);
        pm.write(3, 0xff, 0);
        assert_eq!(word(&mut pm, 2, 0), 0x700, "events that exist");
        pm.write(2, 0x21, 0);
        assert_eq!(word(&mut pm, 2, 0), 0x721, "each byte by itself");
        pm.write(2, 0, 0);
        assert_eq!(word(&mut pm, 2, 0), 0x700);
        assert!(pm.irq());
        pm.write(0, 0xff, 0);
        assert!(pm.irq(), "another byte");
        pm.write(1, 0x01, 0);
        assert!(!pm.irq());
        assert_eq!(word(&mut pm, 0, 0), 0);
    }

    #[test]
    fn only_s5_switches_off() {
        let mut pm = Pm::new();
        assert_eq!(word(&mut pm, 4, 0), 1, "ACPI mode");
        for sleep in 0..8 {
            let expected = (sleep == machine::devices::pm::SLEEP_TYPE_S5).then_some(Power::Off);
            assert_eq!(pm.write(5, sleep << 2 | 0x20, 0), expected, "type {sleep}");
            assert_eq!(word(&mut pm, 4, 0), 1 | u16::from(sleep) << 10, "SLP_EN reads as 0");
            assert_eq!(pm.write(5, sleep << 2, 0), None, "without SLP_EN");
        }
        assert_eq!(pm.write(4, 0, 0), None);
        assert_eq!(word(&mut pm, 4, 0) & 1, 1, "ACPI mode stays");
    }

    #[test]
    fn the_timer_counts_and_its_carry_interrupts() {
        let mut pm = Pm::new();
        assert_eq!(pm.timer(SECOND), 3_579_545);
        let bytes = [8, 9, 10, 11].map(|offset| pm.read(offset, SECOND));
        assert_eq!(u32::from_le_bytes(bytes), 3_579_545);
        assert_eq!(pm.deadline(), None);
        pm.write(2, 0x01, SECOND);
        let at = pm.deadline().expect("enabled");
        assert_eq!((pm.timer(at - 1), pm.timer(at)), (0x7fff_ffff, 0x8000_0000));
        pm.advance(at - 1);
        assert!(!pm.irq());
        pm.power_button();
        pm.advance(at);
        assert!(pm.irq());
        assert_eq!(pm.deadline(), None);
        assert_eq!(word(&mut pm, 0, at), 0x101, "one event does not hide another");
        pm.write(0, 0x01, at);
        assert!(!pm.irq());
        assert_eq!(pm.deadline().map(|at| pm.timer(at)), Some(0));
    }
}

mod keyboard {
    use super::*;

    const DATA: u16 = 0;
    const COMMAND: u16 = 4;

    fn ask(keyboard: &mut Keyboard, command: u8) -> Option<(u8, u8)> {
        assert_eq!(keyboard.write(COMMAND, command, 0), None);
        let status = keyboard.read(COMMAND, 0);
        (status & 1 != 0).then(|| (keyboard.read(DATA, 0), status & 0xe0))
    }

    #[test]
    fn the_controller_answers_and_the_devices_do_not() {
        let mut keyboard = Keyboard::new();
        assert_eq!(keyboard.read(COMMAND, 0), 0x10);
        assert_eq!(ask(&mut keyboard, 0xaa), Some((0x55, 0)));
        assert_eq!(keyboard.read(COMMAND, 0) & 4, 4, "system flag");
        assert_eq!(ask(&mut keyboard, 0xab), Some((0, 0)));
        assert_eq!(ask(&mut keyboard, 0xa9), Some((1, 0)), "no mouse");
        assert_eq!(ask(&mut keyboard, 0x20), Some((0x34, 0)));
        assert_eq!(ask(&mut keyboard, 0x60), None);
        keyboard.write(DATA, 0x47, 0);
        assert_eq!(ask(&mut keyboard, 0x20), Some((0x47, 0)));
        assert!(!keyboard.irq());
        keyboard.write(DATA, 0xf2, 0);
        assert!(keyboard.irq());
        assert_eq!((keyboard.read(COMMAND, 0), keyboard.read(DATA, 0)), (0x55, 0xfe), "time-out");
        assert!(!keyboard.irq());
        assert_eq!(ask(&mut keyboard, 0xd3), None);
        keyboard.write(DATA, 0x5a, 0);
        assert_eq!(keyboard.read(COMMAND, 0) & 0x21, 0x01, "an echo that is not the mouse's");
        assert_eq!(keyboard.read(0x3, 0), 0xff);
    }

    #[test]
    fn the_controllers_ram_is_read_and_written_and_commands_switch_its_ports() {
        let mut keyboard = Keyboard::new();
        keyboard.write(COMMAND, 0x7f, 0);
        assert_eq!(keyboard.read(COMMAND, 0) & 8, 8, "the last write was a command");
        keyboard.write(DATA, 0xa5, 0);
        assert_eq!(keyboard.read(COMMAND, 0) & 8, 0);
        assert_eq!(ask(&mut keyboard, 0x3f), Some((0xa5, 0)));
        keyboard.write(COMMAND, 0x60, 0);
        keyboard.write(DATA, 0x03, 0);
        for (command, byte) in [(0xa7, 0x23), (0xad, 0x33), (0xa8, 0x13), (0xae, 0x03)] {
            assert_eq!(ask(&mut keyboard, command), None);
            assert_eq!(ask(&mut keyboard, 0x20), Some((byte, 0)), "after {command:#x}");
        }
        assert_eq!(ask(&mut keyboard, 0xa4), Some((0xf1, 0)), "no password");
        assert_eq!(ask(&mut keyboard, 0xc0), Some((0x80, 0)), "not locked");
        assert_eq!(ask(&mut keyboard, 0xe0), Some((0, 0)));
        // A command takes the place of one that waits for its data.
        keyboard.write(COMMAND, 0x60, 0);
        assert_eq!(ask(&mut keyboard, 0xaa), Some((0x55, 0)));
        keyboard.write(DATA, 0x00, 0);
        assert_eq!(keyboard.read(DATA, 0), 0xfe, "for the keyboard");
    }

    #[test]
    fn a20_is_gated_by_two_ports() {
        let mut keyboard = Keyboard::new();
        assert!(keyboard.a20());
        keyboard.write(COMMAND, 0xd1, 0);
        assert_eq!(keyboard.write(DATA, 0xdd, 0), None);
        assert_eq!((keyboard.a20(), keyboard.read_port_92()), (false, 0));
        assert_eq!(keyboard.write_port_92(2), None);
        assert_eq!((keyboard.a20(), keyboard.read_port_92()), (true, 2));
        assert_eq!(ask(&mut keyboard, 0xd0).map(|(byte, _)| byte & 3), Some(3));
    }

    #[test]
    fn there_are_four_ways_to_reset() {
        let mut keyboard = Keyboard::new();
        assert_eq!(keyboard.write(COMMAND, 0xfe, 0), Some(Power::Reset));
        assert_eq!(keyboard.write(COMMAND, 0xff, 0), None, "pulses nothing");
        keyboard.write(COMMAND, 0xd1, 0);
        assert_eq!(keyboard.write(DATA, 0xde, 0), Some(Power::Reset));
        assert_eq!(keyboard.write_port_92(3), Some(Power::Reset));
        assert_eq!(keyboard.write_reset_control(0x02), None);
        assert_eq!(keyboard.read_reset_control(), 0x02);
        assert_eq!(keyboard.write_reset_control(0x06), Some(Power::Reset));
        assert_eq!(keyboard.write_reset_control(0x0e), Some(Power::Reset), "as the FADT says");
        assert_eq!(keyboard.read_reset_control(), 0x0a);
    }
}

/// TSC, PM timer, PIT, local APIC timer and RTC tell the same time over hours.
#[test]
fn all_clocks_of_the_board_agree_within_a_tick() {
    let hours = 3;
    let pm = Pm::new();
    let mut pit = Pit::new();
    let mut rtc = Rtc::new(0, 1 << 30, 0);
    let mut interrupts = Interrupts::new();
    // PIT: 18.2 Hz; local APIC timer: 100 Hz; RTC: update interrupts.
    pit.write(3, 0x34, 0);
    pit.write(0, 0, 0);
    pit.write(0, 0, 0);
    interrupts.write_apic(0xf0, 0x1ff, 0);
    interrupts.write_apic(0x3e0, 0xb, 0);
    interrupts.write_apic(0x320, 0x2_0040, 0);
    interrupts.write_apic(0x380, 250_000, 0);
    rtc.write(0, 0x0b, 0);
    rtc.write(1, 0x12, 0);

    let (mut pit_edges, mut apic_ticks, mut seconds) = (0_u64, 0_u64, 0_u64);
    let (mut pm_ticks, mut pm_last) = (0_u64, 0);
    let mut now = 0;
    while now < hours * 3600 * SECOND {
        let deadlines = [pit.deadline(), interrupts.deadline(), rtc.deadline()];
        now = deadlines.into_iter().flatten().min().expect("all of them run");
        pit_edges += u64::from(pit.advance(now));
        interrupts.advance(now);
        if interrupts.acknowledge().is_some() {
            apic_ticks += 1;
            interrupts.write_apic(0xb0, 0, now);
        }
        rtc.advance(now);
        if rtc.irq() {
            rtc.write(0, 0x0c, now);
            seconds += u64::from(rtc.read(1, now) & 0x10 != 0);
        }
        let timer = pm.timer(now);
        pm_ticks += u64::from(timer.wrapping_sub(pm_last));
        pm_last = timer;

        // Each within one of its ticks of the time-stamp counter, which counts nanoseconds.
        let pit_time = (u128::from(pit_edges) * 65_536 * u128::from(SECOND) / 1_193_182) as u64;
        assert!(pit_time.abs_diff(now) <= 65_538 * SECOND / 1_193_182);
        assert!((apic_ticks * 10_000_000).abs_diff(now) <= 10_000_000);
        assert!((seconds * SECOND).abs_diff(now) <= SECOND);
        let pm_time = u128::from(pm_ticks) * u128::from(SECOND) / 3_579_545;
        assert!(pm_time.abs_diff(u128::from(now)) <= 280);
    }
    assert_eq!(seconds, hours * 3600);
}
