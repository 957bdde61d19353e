//! The PIC and the I/O APIC against their data sheets (Intel 8259A, 82093AA).

mod devices_support;

use devices_support::{MASTER, SLAVE, apic, end, irr, isr, pc, program, redirect, redirection};
use machine::interrupts::{Interrupts, State};

mod pic {
    use super::*;

    #[test]
    fn lines_are_served_by_priority_and_a_line_in_service_blocks_lower_ones() {
        let mut all = pc();
        all.pulse(5);
        all.pulse(3);
        assert_eq!(all.acknowledge(), Some(0x0b), "IRQ 3 first");
        assert!(!all.pending(), "IRQ 5 waits for the end of IRQ 3");
        all.pulse(1);
        assert_eq!(all.acknowledge(), Some(0x09), "IRQ 1 interrupts IRQ 3");
        assert_eq!(isr(&mut all, MASTER), 0x0a);
        all.write_port(MASTER, 0x20);
        assert_eq!(isr(&mut all, MASTER), 0x08, "the end is that of IRQ 1");
        all.write_port(MASTER, 0x63);
        assert_eq!(all.acknowledge(), Some(0x0d), "IRQ 5 after the specific end of IRQ 3");
    }

    #[test]
    fn the_slave_comes_by_line_two() {
        let mut all = pc();
        all.pulse(12);
        all.pulse(8);
        assert_eq!(all.acknowledge(), Some(0x70));
        assert_eq!((isr(&mut all, MASTER), isr(&mut all, SLAVE)), (0x04, 0x01));
        all.write_port(SLAVE, 0x20);
        assert!(!all.pending(), "the master still serves line 2");
        all.write_port(MASTER, 0x20);
        assert_eq!(all.acknowledge(), Some(0x74));
        all.pulse(0);
        assert_eq!(all.acknowledge(), Some(0x08), "line 0 is above the slave");
    }

    #[test]
    fn a_slave_interrupts_itself_only_in_special_fully_nested_mode() {
        for (icw4, nested) in [(0x01, false), (0x11, true)] {
            let mut all = pc();
            program(&mut all, MASTER, &[0x11, 0x08, 0x04, icw4]);
            all.pulse(12);
            all.acknowledge();
            all.pulse(8);
            assert_eq!(all.pending(), nested);
        }
    }

    #[test]
    fn an_edge_is_kept_and_a_level_is_not() {
        let mut all = pc();
        all.write_port(0x4d0, 0xff);
        assert_eq!(all.read_port(0x4d0), 0xf8, "timer, keyboard and cascade are by edge");
        all.write_port(0x4d1, 0xff);
        assert_eq!(all.read_port(0x4d1), 0xde, "RTC and coprocessor are by edge");
        all.pulse(5);
        assert!(!all.pending(), "the level is gone");
        all.set_line(5, true);
        assert_eq!(all.acknowledge(), Some(0x0d));
        all.write_port(MASTER, 0x20);
        assert_eq!(all.acknowledge(), Some(0x0d), "again while the level stays");
        all.set_line(5, false);
        all.write_port(MASTER, 0x20);
        assert!(!all.pending());
        all.set_line(1, true);
        assert_eq!(all.acknowledge(), Some(0x09));
        all.write_port(MASTER, 0x20);
        assert!(!all.pending(), "an edge comes once");
        all.set_line(1, false);
        all.set_line(1, true);
        assert!(all.pending());
    }

    #[test]
    fn initialisation_forgets_edges_masks_and_modes() {
        let mut all = pc();
        all.write_port(MASTER + 1, 0xfb);
        all.pulse(1);
        all.set_line(3, true);
        program(&mut all, MASTER, &[0x11, 0x20, 0x04, 0x01]);
        assert_eq!(all.read_port(MASTER + 1), 0, "no mask");
        assert_eq!(all.read_port(MASTER), 0, "no request; the command port reads as IRR");
        all.pulse(3);
        assert!(!all.pending(), "the line is high already: no edge");
        all.pulse(3);
        assert_eq!(all.acknowledge(), Some(0x23), "the new base");
    }

    #[test]
    fn a_masked_line_waits() {
        let mut all = pc();
        all.write_port(MASTER + 1, 0x10);
        all.pulse(4);
        assert!(!all.pending());
        assert_eq!(irr(&mut all, MASTER), 0x10);
        all.write_port(MASTER + 1, 0);
        assert_eq!(all.acknowledge(), Some(0x0c));
    }

    #[test]
    fn automatic_end_leaves_nothing_in_service_and_may_rotate() {
        let mut all = pc();
        program(&mut all, MASTER, &[0x11, 0x08, 0x04, 0x03]);
        all.pulse(3);
        all.acknowledge();
        assert_eq!(isr(&mut all, MASTER), 0);
        all.write_port(MASTER, 0x80);
        all.pulse(3);
        all.acknowledge();
        all.pulse(3);
        all.pulse(4);
        assert_eq!(all.acknowledge(), Some(0x0c), "line 3 has the lowest priority now");
        all.acknowledge();
        all.write_port(MASTER, 0x00);
        all.pulse(5);
        all.pulse(6);
        assert_eq!(all.acknowledge(), Some(0x0d));
        all.pulse(5);
        assert_eq!(all.acknowledge(), Some(0x0d), "no rotation any more");
    }

    #[test]
    fn priorities_rotate_on_command() {
        let mut all = pc();
        all.pulse(4);
        all.acknowledge();
        all.write_port(MASTER, 0xa0);
        assert_eq!(isr(&mut all, MASTER), 0);
        all.pulse(4);
        all.pulse(7);
        all.pulse(5);
        assert_eq!(all.acknowledge(), Some(0x0d), "5 is the highest behind 4");
        all.write_port(MASTER, 0xe5);
        assert_eq!(all.acknowledge(), Some(0x0f), "rotate on specific end: 6, 7");
        all.write_port(MASTER, 0x67);
        all.write_port(MASTER, 0xc3);
        all.pulse(3);
        assert_eq!(all.acknowledge(), Some(0x0c), "set priority: 3 is the lowest");
    }

    #[test]
    fn special_mask_mode_opens_lower_lines() {
        let mut all = pc();
        all.pulse(3);
        all.acknowledge();
        all.pulse(6);
        assert!(!all.pending());
        all.write_port(MASTER + 1, 0x08);
        all.write_port(MASTER, 0x68);
        assert_eq!(all.acknowledge(), Some(0x0e));
        all.write_port(MASTER, 0x20);
        assert_eq!(isr(&mut all, MASTER), 0x08, "the masked line is not ended by a non-specific command");
        all.write_port(MASTER, 0x48);
        all.pulse(6);
        assert!(!all.pending(), "the mode is off");
    }

    #[test]
    fn a_poll_acknowledges() {
        let mut all = pc();
        all.write_port(MASTER, 0x0c);
        assert_eq!(all.read_port(MASTER), 0, "nothing");
        all.write_port(MASTER + 1, 0x40);
        all.pulse(5);
        all.write_port(MASTER, 0x0c);
        assert_eq!(all.read_port(MASTER), 0x85);
        assert_eq!(isr(&mut all, MASTER), 0x20);
        assert!(!all.pending());
    }

    #[test]
    fn an_acknowledge_of_nothing_is_a_spurious_interrupt() {
        let mut pic = machine::interrupts::pic::Pic::new();
        for (port, value) in [(0x20, 0x11), (0x21, 0x08), (0x21, 4), (0x21, 1), (0x21, 0)] {
            pic.write(port, value);
        }
        assert_eq!(pic.acknowledge(), 0x0f);
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), 0, "nothing is in service");
    }

    #[test]
    fn a_masked_slave_takes_its_request_back() {
        let mut all = pc();
        all.set_line(9, true);
        assert!(all.pending());
        all.write_port(SLAVE + 1, 0x02);
        assert!(!all.pending());
        all.write_port(SLAVE + 1, 0);
        assert_eq!(all.acknowledge(), Some(0x71));
    }

    #[test]
    fn a_chip_without_icw4_or_slave_ends_its_initialisation_early() {
        let mut all = pc();
        // No ICW4, single: the second byte is already a mask.
        program(&mut all, MASTER, &[0x12, 0x40, 0xfe]);
        assert_eq!(all.read_port(MASTER + 1), 0xfe);
        all.pulse(0);
        assert_eq!(all.acknowledge(), Some(0x40));
    }
}

mod io_apic {
    use super::*;

    const LEVEL: u32 = 1 << 15;
    const MASKED: u32 = 1 << 16;
    const REMOTE_IRR: u32 = 1 << 14;

    #[test]
    fn registers_read_as_in_the_data_sheet() {
        let mut all = apic();
        all.write_io_apic(0, 1);
        assert_eq!(all.read_io_apic(0x10), 0x0017_0020);
        all.write_io_apic(0, 0);
        all.write_io_apic(0x10, 0xffff_ffff);
        assert_eq!(all.read_io_apic(0x10), 0x0f00_0000);
        all.write_io_apic(0, 2);
        assert_eq!(all.read_io_apic(0x10), 0x0f00_0000, "arbitration is the ID");
        assert_eq!(redirection(&mut all, 23), MASKED, "masked after power-on");
        redirect(&mut all, 23, 0xffff_ffff);
        assert_eq!(redirection(&mut all, 23), 0x1_afff, "delivery status and remote IRR are read-only");
        all.write_io_apic(0, 0x40);
        assert_eq!(all.read_io_apic(0x10), 0, "beyond the table");
        all.write_io_apic(0x10, 5);
        assert_eq!(all.read_io_apic(0x44), 0, "beyond the registers");
    }

    #[test]
    fn the_timer_is_at_pin_two() {
        let mut all = apic();
        redirect(&mut all, 2, 0x30);
        redirect(&mut all, 0, 0x31);
        all.pulse(0);
        assert_eq!(all.acknowledge(), Some(0x30));
        assert_eq!(all.acknowledge(), None, "once");
    }

    #[test]
    fn an_edge_at_a_masked_pin_is_lost_and_a_level_is_not() {
        let mut all = apic();
        redirect(&mut all, 4, MASKED | 0x34);
        redirect(&mut all, 20, MASKED | LEVEL | 0x44);
        all.set_line(4, true);
        all.set_line(20, true);
        redirect(&mut all, 4, 0x34);
        assert!(!all.pending(), "the edge is gone");
        redirect(&mut all, 20, LEVEL | 0x44);
        assert_eq!(all.acknowledge(), Some(0x44));
    }

    #[test]
    fn a_level_comes_again_after_its_end_while_it_stays() {
        let mut all = apic();
        redirect(&mut all, 9, LEVEL | 0x39);
        all.set_line(9, true);
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, REMOTE_IRR);
        assert_eq!(all.acknowledge(), Some(0x39));
        all.set_line(9, false);
        all.set_line(9, true);
        assert!(!all.pending(), "not again before its end");
        end(&mut all);
        assert_eq!(all.acknowledge(), Some(0x39));
        all.set_line(9, false);
        end(&mut all);
        assert!(!all.pending());
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, 0);
    }

    #[test]
    fn the_end_of_an_edge_is_not_broadcast() {
        let mut all = apic();
        redirect(&mut all, 9, LEVEL | 0x39);
        redirect(&mut all, 4, 0x39);
        all.pulse(4);
        all.acknowledge();
        // Pin 9 shares the vector, and its interrupt is not accepted as level until now.
        end(&mut all);
        all.set_line(9, true);
        assert_eq!(all.acknowledge(), Some(0x39));
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, REMOTE_IRR);
        end(&mut all);
        assert!(all.pending(), "still asserted");
    }

    #[test]
    fn the_end_register_and_a_change_to_edge_clear_remote_irr() {
        let mut all = apic();
        redirect(&mut all, 9, LEVEL | 0x39);
        all.set_line(9, true);
        all.set_line(9, false);
        all.write_io_apic(0x40, 0x38);
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, REMOTE_IRR, "another vector");
        all.write_io_apic(0x40, 0x39);
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, 0);
        all.set_line(9, true);
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, REMOTE_IRR);
        all.set_line(9, false);
        redirect(&mut all, 9, 0x39);
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, 0);
    }

    #[test]
    fn a_message_for_somebody_else_is_not_taken() {
        let mut all = apic();
        redirect(&mut all, 9, LEVEL | 0x39);
        all.write_io_apic(0, 0x11 + 18);
        all.write_io_apic(0x10, 0x0500_0000);
        all.set_line(9, true);
        assert!(!all.pending());
        assert_eq!(redirection(&mut all, 9) & REMOTE_IRR, 0);
        all.write_io_apic(0, 0x11 + 18);
        all.write_io_apic(0x10, 0xff00_0000);
        assert!(all.pending(), "the broadcast is for us");
    }

    #[test]
    fn a_level_that_was_refused_comes_when_the_local_apic_is_enabled() {
        let mut all = Interrupts::new();
        redirect(&mut all, 9, LEVEL | 0x39);
        all.set_line(9, true);
        assert!(!all.pending());
        all.write_apic(0xf0, 0x1ff, 0);
        assert_eq!(all.acknowledge(), Some(0x39));
    }

    #[test]
    fn pin_zero_can_bring_the_interrupts_of_the_pic() {
        let mut all = apic();
        program(&mut all, MASTER, &[0x11, 0x08, 0x04, 0x01]);
        all.pulse(1);
        assert!(!all.pending(), "LINT0 is masked");
        redirect(&mut all, 0, 0x700);
        assert_eq!(all.acknowledge(), Some(0x09));
        assert_eq!(isr(&mut all, MASTER), 2);
    }

    #[test]
    fn an_nmi_comes_by_a_pin() {
        let mut all = apic();
        redirect(&mut all, 5, 0x400);
        all.pulse(5);
        assert!(all.nmi_pending() && !all.pending());
        assert!(all.take_nmi() && !all.take_nmi());
    }
}

mod states {
    use super::*;

    /// Each of these would be believed by something.
    #[test]
    fn impossible_states_are_refused() {
        let good = pc().save();
        assert!(Interrupts::restore(good.clone()).is_ok());
        let bad: [fn(&mut State); 14] = [
            |s| s.pic.chips[0].lines = 0x20,
            |s| s.io_apic.asserted = 1 << 12,
            |s| s.pic.chips[0].lowest = 8,
            |s| s.pic.chips[1].next = 1,
            |s| s.pic.chips[0].base = 1,
            |s| s.pic.chips[0].level = 1,
            |s| s.pic.chips[0].irr = 4,
            |s| s.pic.chips[0].irr = 1,
            |s| s.io_apic.table[3] = 1 << 14,
            |s| s.io_apic.asserted = 1 << 24,
            |s| s.local.mode = 0,
            |s| s.local.irr.0[0] = 1,
            |s| s.local.lvt[0] = 1 << 31,
            |s| s.local.timer.divide = 4,
        ];
        for (i, spoil) in bad.iter().enumerate() {
            let mut state = good.clone();
            spoil(&mut state);
            assert!(Interrupts::restore(state).is_err(), "number {i}");
        }
    }
}
