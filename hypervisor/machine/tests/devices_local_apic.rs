//! The local APIC against the SDM (volume 3A, chapter 12).

mod devices_support;

use devices_support::{MASTER, apic, end, program, redirect};
use machine::interrupts::Interrupts;

mod local {
    use super::*;

    const ID: u64 = 0x20;
    const TPR: u64 = 0x80;
    const PPR: u64 = 0xa0;
    const LDR: u64 = 0xd0;
    const DFR: u64 = 0xe0;
    const SVR: u64 = 0xf0;
    const ESR: u64 = 0x280;
    const ICR: u64 = 0x300;
    const ICR_HIGH: u64 = 0x310;
    const LVT_TIMER: u64 = 0x320;
    const LINT0: u64 = 0x350;
    const LINT1: u64 = 0x360;
    const LVT_ERROR: u64 = 0x370;
    const INITIAL: u64 = 0x380;
    const CURRENT: u64 = 0x390;
    const DIVIDE: u64 = 0x3e0;
    const MASKED: u32 = 1 << 16;

    fn self_ipi(all: &mut Interrupts, vector: u8) {
        all.write_apic(ICR, 0x4_0000 | u32::from(vector), 0);
    }

    #[test]
    fn registers_read_as_after_power_on() {
        let mut all = Interrupts::new();
        assert_eq!(all.read_apic(ID, 0), 0);
        assert_eq!(all.read_apic(0x30, 0), 0x0005_0014);
        assert_eq!(all.read_apic(DFR, 0), 0xffff_ffff);
        assert_eq!(all.read_apic(SVR, 0), 0xff);
        for lvt in (LVT_TIMER..=LVT_ERROR).step_by(16) {
            assert_eq!(all.read_apic(lvt, 0), MASKED);
        }
        assert_eq!(all.read_msr(0x1b, 0), Some(0xfee0_0900));
    }

    #[test]
    fn reserved_bits_do_not_stay() {
        let mut all = apic();
        let written = [
            (TPR, 0xff),
            (LDR, 0xff00_0000),
            (DFR, 0xffff_ffff),
            (SVR, 0x3ff),
            (LVT_TIMER, 0x7_00ff),
            (0x330, 0x1_07ff),
            (0x340, 0x1_07ff),
            (LINT0, 0x1_a7ff),
            (LINT1, 0x1_a7ff),
            (LVT_ERROR, 0x1_00ff),
            (DIVIDE, 0xb),
        ];
        for (register, stays) in written {
            all.write_apic(register, 0xffff_ffff, 0);
            assert_eq!(all.read_apic(register, 0), stays, "{register:#x}");
        }
        all.write_apic(DFR, 0, 0);
        assert_eq!(all.read_apic(DFR, 0), 0x0fff_ffff);
        all.write_apic(ID, 0x0500_0000, 0);
        assert_eq!(all.read_apic(ID, 0), 0, "the ID is fixed");
    }

    #[test]
    fn vectors_are_served_by_class() {
        let mut all = apic();
        self_ipi(&mut all, 0x35);
        self_ipi(&mut all, 0x51);
        assert_eq!(all.read_apic(0x210, 0), 1 << 0x15, "IRR");
        assert_eq!(all.acknowledge(), Some(0x51));
        assert_eq!(all.read_apic(PPR, 0), 0x50);
        assert_eq!(all.read_apic(0x120, 0), 1 << 0x11, "ISR");
        self_ipi(&mut all, 0x5f);
        assert!(!all.pending(), "the same class does not interrupt");
        self_ipi(&mut all, 0x60);
        assert_eq!(all.acknowledge(), Some(0x60));
        end(&mut all);
        assert!(!all.pending());
        end(&mut all);
        assert_eq!(all.acknowledge(), Some(0x5f));
        end(&mut all);
        assert_eq!(all.acknowledge(), Some(0x35));
        end(&mut all);
        end(&mut all);
        assert_eq!(all.acknowledge(), None);
    }

    #[test]
    fn the_task_priority_masks_its_class_and_below() {
        let mut all = apic();
        all.set_task_priority(5);
        assert_eq!(all.read_apic(TPR, 0), 0x50, "CR8 is the class");
        self_ipi(&mut all, 0x5f);
        assert!(!all.pending());
        all.write_apic(TPR, 0x4f, 0);
        assert_eq!(all.task_priority(), 4);
        assert!(all.pending(), "the subclass does not matter");
        assert_eq!(all.read_apic(PPR, 0), 0x4f);
        all.set_task_priority(0xff);
        assert_eq!(all.task_priority(), 0xf);
    }

    #[test]
    fn disabled_by_software_it_takes_nothing_new_and_masks_its_table() {
        let mut all = apic();
        all.write_apic(LVT_TIMER, 0x40, 0);
        self_ipi(&mut all, 0x50);
        all.write_apic(SVR, 0xff, 0);
        assert_eq!(all.read_apic(LVT_TIMER, 0), MASKED | 0x40);
        all.write_apic(LVT_TIMER, 0x41, 0);
        assert_eq!(all.read_apic(LVT_TIMER, 0), MASKED | 0x41, "the mask stays");
        self_ipi(&mut all, 0x51);
        all.message(0xfee0_0000, 0x52);
        assert_eq!(all.acknowledge(), Some(0x50), "what was requested before is held");
        end(&mut all);
        assert!(!all.pending());
        all.message(0xfee0_0000, 0x400);
        assert!(all.take_nmi(), "NMI is taken nevertheless");
    }

    #[test]
    fn messages_are_for_those_whom_they_name() {
        let mut all = apic();
        let mut taken = |address: u64, data: u32| {
            all.message(address, data);
            let vector = all.acknowledge();
            end(&mut all);
            vector
        };
        assert_eq!(taken(0xfee0_0000, 0x41), Some(0x41));
        assert_eq!(taken(0xfee0_1000, 0x41), None, "APIC 1");
        assert_eq!(taken(0xfeef_f000, 0x141), Some(0x41), "everybody, lowest priority");
        assert_eq!(taken(0xfee0_1004, 0x41), None, "our logical ID is 0");
        assert_eq!(taken(0xfed0_0000, 0x41), None, "no address for interrupts");
        assert_eq!(taken(0x1_fee0_0000, 0x41), None, "nor this");
        assert_eq!(taken(0xfee0_0000, 0x8041), None, "a level that is released");
        assert_eq!(taken(0xfee0_0000, 0xc041), Some(0x41), "a level that is asserted");
        assert_eq!(taken(0xfee0_0000, 0x541), None, "INIT has no effect");
    }

    #[test]
    fn logical_destinations_match_flat_and_by_cluster() {
        let mut all = apic();
        let mut taken = |ldr: u32, dfr: u32, destination: u64| {
            all.write_apic(LDR, ldr << 24, 0);
            all.write_apic(DFR, dfr, 0);
            all.message(0xfee0_0004 | destination << 12, 0x41);
            let taken = all.acknowledge().is_some();
            end(&mut all);
            taken
        };
        assert!(taken(0x04, !0, 0x0c));
        assert!(!taken(0x04, !0, 0x0b));
        assert!(taken(0x32, 0, 0x36));
        assert!(!taken(0x32, 0, 0x26), "another cluster");
        assert!(!taken(0x32, 0, 0x34), "another member");
        assert!(taken(0x32, 0, 0xff), "everybody");
        assert!(!taken(0x04, 0x5fff_ffff, 0x04), "no such model");
    }

    #[test]
    fn the_command_register_reaches_this_processor_only() {
        let mut all = apic();
        let mut taken = |high: u32, low: u32| {
            all.write_apic(ICR_HIGH, high, 0);
            all.write_apic(ICR, low, 0);
            assert_eq!(all.read_apic(ICR, 0), low & !0x1000, "delivery is over at once");
            let taken = all.acknowledge();
            end(&mut all);
            (taken, all.take_nmi())
        };
        assert_eq!(taken(0, 0x41), (Some(0x41), false), "physical, ourselves");
        assert_eq!(taken(0x0100_0000, 0x41), (None, false), "somebody else");
        assert_eq!(taken(0, 0x8_0041), (Some(0x41), false), "all including self");
        assert_eq!(taken(0, 0xc_0041), (None, false), "all but self");
        assert_eq!(taken(0, 0x400), (None, true), "NMI");
        assert_eq!(taken(0, 0x4_0400), (None, false), "NMI to self by shorthand is not valid");
        assert_eq!(taken(0, 0xc500), (None, false), "INIT");
        assert_eq!(taken(0, 0x608), (None, false), "start-up");
    }

    #[test]
    fn errors_are_latched_by_a_write_and_interrupt() {
        let mut all = apic();
        all.write_apic(LVT_ERROR, 0xee, 0);
        self_ipi(&mut all, 0x0f);
        assert_eq!(all.read_apic(ESR, 0), 0, "not latched yet");
        assert_eq!(all.acknowledge(), Some(0xee));
        end(&mut all);
        all.write_apic(ESR, 0, 0);
        assert_eq!(all.read_apic(ESR, 0), 0x60, "sent and received an illegal vector");
        all.write_apic(ESR, 0, 0);
        assert_eq!(all.read_apic(ESR, 0), 0);
        all.read_apic(0x40, 0);
        all.write_apic(ESR, 0, 0);
        assert_eq!(all.read_apic(ESR, 0), 0x80, "a register that is not there");
        assert_eq!(all.acknowledge(), Some(0xee));
        end(&mut all);
        all.message(0xfee0_0000, 0x05);
        all.write_apic(ESR, 0, 0);
        assert_eq!(all.read_apic(ESR, 0), 0x40);
        // An error entry with an illegal vector does not report itself for ever.
        all.write_apic(LVT_ERROR, 0x05, 0);
        all.message(0xfee0_0000, 0x06);
    }

    #[test]
    fn lint0_brings_the_pic_or_a_vector_or_an_nmi() {
        let mut all = apic();
        program(&mut all, MASTER, &[0x11, 0x08, 0x04, 0x01]);
        all.write_apic(LINT0, 0x700, 0);
        all.write_apic(TPR, 0xff, 0);
        all.pulse(1);
        assert_eq!(all.acknowledge(), Some(0x09), "whatever the task priority");
        all.write_port(MASTER, 0x20);
        all.write_apic(TPR, 0, 0);
        all.write_apic(LINT0, 0x45, 0);
        all.pulse(1);
        assert_eq!(all.acknowledge(), Some(0x45), "fixed: the vector of the entry");
        end(&mut all);
        assert!(!all.pending(), "an edge comes once, though the PIC still asks");
        all.write_port(MASTER, 0x0c);
        assert_eq!(all.read_port(MASTER), 0x81);
        all.write_port(MASTER, 0x20);
        all.write_apic(LINT0, 0x400, 0);
        all.pulse(0);
        assert!(all.take_nmi());
    }

    #[test]
    fn without_the_local_apic_the_pic_is_at_the_processor() {
        let mut all = apic();
        program(&mut all, MASTER, &[0x11, 0x08, 0x04, 0x01]);
        self_ipi(&mut all, 0x50);
        assert_eq!(all.write_msr(0x1b, 0xfee0_0100, 0), Some(()));
        assert!(!all.pending(), "what was requested is lost");
        assert_eq!(all.read_apic(0x30, 0), 0xffff_ffff, "nobody answers");
        all.pulse(1);
        assert_eq!(all.acknowledge(), Some(0x09));
        all.message(0xfee0_0000, 0x41);
        assert!(!all.pending());
        all.nmi_line();
        assert!(all.take_nmi());
        assert_eq!(all.write_msr(0x1b, 0xfee0_0900, 0), Some(()));
        assert_eq!(all.read_apic(SVR, 0), 0xff, "as after power-on");
    }

    #[test]
    fn the_nmi_line_is_at_lint1() {
        let mut all = apic();
        all.nmi_line();
        assert!(!all.take_nmi(), "masked");
        all.write_apic(LINT1, 0x400, 0);
        all.nmi_line();
        assert!(all.take_nmi());
    }

    mod timer {
        use super::*;

        #[test]
        fn one_shot_counts_the_crystal_and_stops() {
            let mut all = apic();
            all.write_apic(LVT_TIMER, 0x40, 0);
            all.write_apic(DIVIDE, 0xb, 0);
            all.write_apic(INITIAL, 1000, 500);
            assert_eq!(all.deadline(), Some(500 + 40_000));
            assert_eq!(all.read_apic(CURRENT, 500), 1000);
            assert_eq!(all.read_apic(CURRENT, 500 + 40), 999);
            assert_eq!(all.read_apic(CURRENT, 500 + 79), 999);
            assert_eq!(all.read_apic(CURRENT, 500 + 39_999), 1);
            all.advance(500 + 39_999);
            assert!(!all.pending());
            all.advance(500 + 40_000);
            assert_eq!(all.acknowledge(), Some(0x40));
            assert_eq!((all.deadline(), all.read_apic(CURRENT, 50_000)), (None, 0));
            all.advance(1 << 50);
            assert!(!all.pending());
        }

        #[test]
        fn the_divisor_is_as_in_the_sdm() {
            let mut all = apic();
            let table = [(0x0, 2), (0x1, 4), (0x2, 8), (0x3, 16), (0x8, 32), (0x9, 64), (0xa, 128), (0xb, 1)];
            all.write_apic(LVT_TIMER, 0x40, 0);
            for (code, divisor) in table {
                all.write_apic(DIVIDE, code, 0);
                all.write_apic(INITIAL, 10, 0);
                assert_eq!(all.deadline(), Some(400 * divisor), "{code:#x}");
                assert_eq!(all.read_apic(CURRENT, 40 * divisor), 9);
                assert_eq!(all.read_apic(CURRENT, 40 * divisor - 1), 10);
            }
            all.write_apic(DIVIDE, 0x0, 40);
            assert_eq!(all.deadline(), Some(40 + 9 * 80), "9 counts are left, of 80 ns now");
        }

        #[test]
        fn periodic_keeps_its_phase_over_long_jumps() {
            let mut all = apic();
            all.write_apic(DIVIDE, 0xb, 0);
            all.write_apic(LVT_TIMER, 0x2_0040, 0);
            all.write_apic(INITIAL, 25_000, 0);
            for millisecond in 1..100 {
                assert_eq!(all.deadline(), Some(millisecond * 1_000_000));
                all.advance(millisecond * 1_000_000 + 7);
                assert_eq!(all.acknowledge(), Some(0x40));
                end(&mut all);
            }
            // Exactly one period late: both are over.
            all.advance(101 * 1_000_000);
            assert_eq!(all.acknowledge(), Some(0x40));
            end(&mut all);
            assert_eq!(all.deadline(), Some(102 * 1_000_000));
            all.advance(3_600_000_300_000);
            assert_eq!(all.acknowledge(), Some(0x40));
            end(&mut all);
            assert!(!all.pending(), "missed ticks are one");
            assert_eq!(all.deadline(), Some(3_600_001_000_000));
            assert_eq!(all.read_apic(CURRENT, 3_600_000_300_000), 17_500);
            all.write_apic(LVT_TIMER, 0x3_0040, 3_600_000_300_000);
            assert_eq!(all.deadline(), None, "nobody is interrupted");
            assert_eq!(all.read_apic(CURRENT, 3_600_001_300_000), 17_500, "and it counts on");
            all.write_apic(INITIAL, 0, 3_600_001_300_000);
            assert_eq!(all.read_apic(CURRENT, 3_600_001_300_000), 0, "stopped");
        }

        #[test]
        fn a_period_that_no_processor_could_serve_is_served_less_often() {
            let mut all = apic();
            all.write_apic(DIVIDE, 0xb, 0);
            all.write_apic(LVT_TIMER, 0x2_0040, 0);
            all.write_apic(INITIAL, 1, 0);
            let (mut now, mut ticks) = (0, 0);
            while now < 1_000_000 {
                now = all.deadline().expect("periodic");
                all.advance(now);
                ticks += 1;
            }
            assert!((90..=110).contains(&ticks), "{ticks} in a millisecond");
        }

        #[test]
        fn tsc_deadline_fires_once_at_its_time() {
            let mut all = apic();
            assert_eq!(all.write_msr(0x6e0, 700, 0), Some(()));
            assert_eq!(all.read_msr(0x6e0, 0), Some(0), "ignored in another mode");
            all.write_apic(LVT_TIMER, 0x4_0040, 0);
            all.write_msr(0x6e0, 700, 100);
            assert_eq!((all.deadline(), all.read_msr(0x6e0, 100)), (Some(700), Some(700)));
            all.write_apic(INITIAL, 50, 100);
            assert_eq!(all.deadline(), Some(700), "the initial count is ignored");
            assert_eq!(all.read_apic(CURRENT, 100), 0);
            all.advance(699);
            assert!(!all.pending());
            all.advance(700);
            assert_eq!(all.acknowledge(), Some(0x40));
            end(&mut all);
            assert_eq!(all.read_msr(0x6e0, 701), Some(0), "disarmed");
            all.write_msr(0x6e0, 500, 800);
            assert_eq!(all.acknowledge(), Some(0x40), "the past fires at once");
            end(&mut all);
            all.write_msr(0x6e0, 2000, 800);
            all.write_msr(0x6e0, 0, 800);
            assert_eq!(all.deadline(), None);
            all.write_msr(0x6e0, 2000, 800);
            all.write_apic(LVT_TIMER, 0x40, 800);
            assert_eq!(all.deadline(), None, "a change of mode disarms");
        }

        #[test]
        fn an_access_sees_an_expiry_that_nobody_has_told_of() {
            let mut all = apic();
            all.write_apic(LVT_TIMER, 0x4_0040, 0);
            all.write_msr(0x6e0, 2000, 0);
            assert_eq!(all.read_msr(0x6e0, 2000), Some(0));
            assert_eq!(all.acknowledge(), Some(0x40));
            end(&mut all);
            all.write_msr(0x6e0, 3000, 2000);
            all.write_msr(0x6e0, 9000, 4000);
            assert_eq!(all.acknowledge(), Some(0x40), "before it is armed anew");
            end(&mut all);
            assert_eq!(all.deadline(), Some(9000));
            all.write_apic(LVT_TIMER, 0x40, 5000);
            all.write_apic(DIVIDE, 0xb, 5000);
            for access in [INITIAL, DIVIDE, LVT_TIMER] {
                all.write_apic(INITIAL, 10, 6000);
                let value = if access == LVT_TIMER { 0x40 } else { 0xb };
                all.write_apic(access, value, 7000);
                assert_eq!(all.acknowledge(), Some(0x40), "{access:#x}");
                end(&mut all);
                all.write_apic(INITIAL, 0, 7000);
            }
            all.write_apic(INITIAL, 10, 8000);
            assert_eq!(all.read_apic(CURRENT, 9000), 0);
            assert_eq!(all.acknowledge(), Some(0x40));
        }

        #[test]
        fn a_masked_timer_is_noticed_when_it_is_unmasked_in_time() {
            let mut all = apic();
            all.write_apic(DIVIDE, 0xb, 0);
            all.write_apic(LVT_TIMER, MASKED | 0x40, 0);
            all.write_apic(INITIAL, 100, 0);
            assert_eq!(all.deadline(), None);
            all.write_apic(LVT_TIMER, 0x40, 1000);
            assert_eq!(all.deadline(), Some(4000));
            all.write_apic(LVT_TIMER, MASKED | 0x40, 1000);
            all.write_apic(LVT_TIMER, 0x40, 5000);
            all.advance(5000);
            assert!(!all.pending(), "what passed while masked is gone");
        }
    }
}

mod x2apic {
    use super::*;

    fn x2apic() -> Interrupts {
        let mut all = apic();
        assert_eq!(all.write_msr(0x1b, 0xfee0_0d00, 0), Some(()));
        all
    }

    #[test]
    fn base_follows_the_transitions_of_the_sdm() {
        const DISABLED: u64 = 0xfee0_0100;
        const XAPIC: u64 = 0xfee0_0900;
        const X2APIC: u64 = 0xfee0_0d00;
        const INVALID: u64 = 0xfee0_0500;
        let allowed = [
            (DISABLED, [true, true, false, false]),
            (XAPIC, [true, true, true, false]),
            (X2APIC, [true, false, true, false]),
        ];
        for (from, to) in allowed {
            for (to, ok) in [DISABLED, XAPIC, X2APIC, INVALID].into_iter().zip(to) {
                let mut all = Interrupts::new();
                if from != XAPIC {
                    assert_eq!(all.write_msr(0x1b, from, 0), Some(()));
                }
                assert_eq!(all.write_msr(0x1b, to, 0).is_some(), ok, "{from:#x} to {to:#x}");
                assert_eq!(all.read_msr(0x1b, 0), Some(if ok { to } else { from }));
            }
        }
        let mut all = Interrupts::new();
        for bad in [0xfee0_0901, 0xfee0_0b00, 1 << 52 | XAPIC, 0xfed0_0900] {
            assert_eq!(all.write_msr(0x1b, bad, 0), None, "{bad:#x}");
        }
        assert_eq!(all.write_msr(0x1b, 0xfee0_0800, 0), Some(()));
        assert_eq!(all.read_msr(0x1b, 0), Some(XAPIC), "the bootstrap processor stays one");
    }

    #[test]
    fn registers_that_are_there_are_those_of_the_sdm() {
        let readable = [0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, 0x828, 0x830, 0x838, 0x839, 0x83e];
        let mut all = x2apic();
        for number in 0x800..0x900 {
            let vectors = (0x810..=0x827).contains(&number);
            let lvt = (0x832..=0x837).contains(&number);
            let expected = readable.contains(&number) || vectors || lvt;
            assert_eq!(all.read_msr(number, 0).is_some(), expected, "read {number:#x}");
        }
        let writable = [0x808, 0x80b, 0x80f, 0x828, 0x830, 0x838, 0x83e];
        for number in 0x800..0x900 {
            let lvt = (0x832..=0x837).contains(&number);
            let mut all = x2apic();
            // The self-IPI register is written with a legal vector.
            let value = if number == 0x83f { 0x20 } else { 0 };
            let expected = writable.contains(&number) || lvt || number == 0x83f;
            assert_eq!(all.write_msr(number, value, 0).is_some(), expected, "write {number:#x}");
        }
        let mut all = apic();
        for number in 0x800..0x900 {
            assert_eq!(all.read_msr(number, 0), None, "not in xAPIC mode");
            assert_eq!(all.write_msr(number, 0, 0), None);
        }
    }

    #[test]
    fn reserved_bits_fault() {
        let mut all = x2apic();
        let bad = [
            (0x808, 0x100),
            (0x80b, 1),
            (0x80f, 0x400),
            (0x828, 1),
            (0x830, 1 << 20),
            (0x830, 1 << 12),
            (0x832, 1 << 19),
            (0x832, 1 << 8),
            (0x835, 1 << 11),
            (0x837, 1 << 8),
            (0x838, 1 << 32),
            (0x83e, 4),
            (0x83f, 0x100),
        ];
        for (number, value) in bad {
            assert_eq!(all.write_msr(number, value, 0), None, "{number:#x} {value:#x}");
        }
        assert_eq!(
            all.write_msr(0x835, 1 << 12 | 1 << 14 | 0x700, 0),
            Some(()),
            "read-only bits are ignored"
        );
        assert_eq!(all.read_msr(0x835, 0), Some(0x700));
    }

    #[test]
    fn identity_and_destinations_have_32_bits() {
        let mut all = x2apic();
        assert_eq!((all.read_msr(0x802, 0), all.read_msr(0x80d, 0)), (Some(0), Some(1)));
        let mut taken = |command: u64| {
            assert_eq!(all.write_msr(0x830, command, 0), Some(()));
            assert_eq!(all.read_msr(0x830, 0), Some(command));
            let taken = all.acknowledge();
            assert_eq!(all.write_msr(0x80b, 0, 0), Some(()));
            taken
        };
        assert_eq!(taken(0x41), Some(0x41));
        assert_eq!(taken(1 << 32 | 0x41), None);
        assert_eq!(taken(0xff << 32 | 0x41), None, "255 is one processor among many");
        assert_eq!(taken(0xffff_ffff << 32 | 0x41), Some(0x41));
        assert_eq!(taken(1 << 32 | 0x841), Some(0x41), "logical: cluster 0, member 0");
        assert_eq!(taken(1 << 48 | 1 << 32 | 0x841), None, "cluster 1");
        assert_eq!(all.write_msr(0x83f, 0x55, 0), Some(()));
        assert_eq!(all.acknowledge(), Some(0x55));
        assert_eq!(all.read_apic(0x30, 0), 0xffff_ffff, "the page does not answer");
        all.write_apic(0xb0, 0, 0);
        assert_eq!(all.read_msr(0x812, 0), Some(1 << 0x15), "nor listen");
    }

    #[test]
    fn the_end_of_a_level_reaches_the_io_apic() {
        let mut all = x2apic();
        redirect(&mut all, 9, 0x8039);
        all.set_line(9, true);
        assert_eq!(all.acknowledge(), Some(0x39));
        assert_eq!(all.read_msr(0x819, 0), Some(1 << 0x19), "TMR");
        all.write_msr(0x80b, 0, 0);
        assert_eq!(all.acknowledge(), Some(0x39));
        all.set_line(9, false);
        all.write_msr(0x80b, 0, 0);
        assert!(!all.pending());
    }
}
