//! The real-time clock against its data sheet (Motorola MC146818A) and the PC's use of its RAM.

use machine::devices::Rtc;

const SECOND: u64 = 1_000_000_000;
/// Thursday, 2026-07-09 23:59:58 UTC.
const WALL: u64 = 1_783_641_598;

fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
    rtc.write(0, index, now);
    rtc.read(1, now)
}

fn set(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
    rtc.write(0, index, now);
    rtc.write(1, value, now);
}

fn rtc() -> Rtc {
    Rtc::new(WALL, 3 << 30, 5 << 30)
}

fn date(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
}

#[test]
fn it_shows_the_wall_clock_and_runs_over_midnight() {
    let mut rtc = rtc();
    assert_eq!(date(&mut rtc, 0), [0x20, 0x26, 0x07, 0x09, 5, 0x23, 0x59, 0x58]);
    assert_eq!(date(&mut rtc, 2 * SECOND), [0x20, 0x26, 0x07, 0x10, 6, 0, 0, 0]);
    assert_eq!(get(&mut rtc, 0x0d, 0), 0x80, "valid");
    assert_eq!(get(&mut rtc, 0x0a, 0), 0x26);
    assert_eq!(rtc.read(0, 0), 0xff, "the index cannot be read");
}

#[test]
fn binary_and_twelve_hours() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, 0x06, 0);
    assert_eq!(date(&mut rtc, 0), [20, 26, 7, 9, 5, 23, 59, 58]);
    set(&mut rtc, 0x0b, 0x00, 0);
    assert_eq!(get(&mut rtc, 4, 0), 0x91, "11 p.m.");
    assert_eq!(get(&mut rtc, 4, 2 * SECOND), 0x12, "midnight is 12 a.m.");
    assert_eq!(get(&mut rtc, 4, (2 + 12 * 3600) * SECOND), 0x92, "noon is 12 p.m.");
    for hour in 0..24 {
        set(&mut rtc, 0x0b, 0x00, 0);
        set(&mut rtc, 0x0b, 0x80, 0);
        let written = (hour + 11) % 12 + 1;
        set(&mut rtc, 4, (written / 10 * 16 + written % 10) | if hour >= 12 { 0x80 } else { 0 }, 0);
        set(&mut rtc, 0x0b, 0x00, 0);
        set(&mut rtc, 0x0b, 0x06, 0);
        assert_eq!(get(&mut rtc, 4, 0), hour);
    }
}

#[test]
fn the_time_can_be_set() {
    let mut rtc = rtc();
    let now = 300 * SECOND + 123_456_789;
    set(&mut rtc, 0x0b, 0x82, now);
    let wanted = [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59];
    for (index, value) in [0x32, 9, 8, 7, 6, 4, 2, 0].into_iter().zip(wanted) {
        set(&mut rtc, index, value, now);
    }
    assert_eq!(date(&mut rtc, now + 100 * SECOND), wanted, "stopped: bytes");
    let now = now + 100 * SECOND;
    set(&mut rtc, 0x0b, 0x02, now);
    assert_eq!(date(&mut rtc, now), wanted);
    assert_eq!(date(&mut rtc, now + SECOND), [0x20, 0, 1, 1, 7, 0, 0, 0]);
    set(&mut rtc, 6, 3, now);
    assert_eq!(get(&mut rtc, 6, now + SECOND), 4, "the day of the week is what was set");
    set(&mut rtc, 2, 0x30, now);
    assert_eq!(date(&mut rtc, now)[5..], [0x23, 0x30, 0x59], "one field of a running clock");
}

#[test]
fn releasing_the_divider_gives_half_a_second() {
    let mut rtc = rtc();
    let now = 10 * SECOND + 700_000_000;
    set(&mut rtc, 0x0a, 0x76, now);
    set(&mut rtc, 0, 0x30, now);
    assert_eq!(get(&mut rtc, 0, now + 5 * SECOND), 0x30);
    let now = now + 5 * SECOND + 77;
    set(&mut rtc, 0x0a, 0x26, now);
    assert_eq!(get(&mut rtc, 0, now + SECOND / 2 - 1), 0x30);
    assert_eq!(get(&mut rtc, 0, now + SECOND / 2), 0x31);
    assert_eq!(get(&mut rtc, 0, now + 3 * SECOND / 2), 0x32);
}

#[test]
fn an_update_is_announced() {
    let mut rtc = rtc();
    let updating = |rtc: &mut Rtc, now| get(rtc, 0x0a, now) & 0x80 != 0;
    assert!(!updating(&mut rtc, SECOND));
    assert!(!updating(&mut rtc, 2 * SECOND - 2_228_001));
    assert!(updating(&mut rtc, 2 * SECOND - 2_228_000));
    assert!(updating(&mut rtc, 2 * SECOND - 1));
    assert!(!updating(&mut rtc, 2 * SECOND));
    set(&mut rtc, 0x0b, 0x82, 0);
    assert!(!updating(&mut rtc, 3 * SECOND - 1), "SET stops updates");
}

#[test]
fn the_update_interrupt_comes_each_second_until_it_is_read() {
    let mut rtc = rtc();
    let half = SECOND / 2;
    get(&mut rtc, 0x0c, half);
    set(&mut rtc, 0x0b, 0x12, half);
    assert_eq!(rtc.deadline(), Some(SECOND));
    rtc.advance(SECOND - 1);
    assert!(!rtc.irq());
    rtc.advance(SECOND);
    assert!(rtc.irq());
    assert_eq!(rtc.deadline(), None, "until it is read");
    assert_eq!(get(&mut rtc, 0x0c, SECOND) & 0xb0, 0x90);
    assert!(!rtc.irq());
    assert_eq!(get(&mut rtc, 0x0c, SECOND) & 0x90, 0);
    assert_eq!(rtc.deadline(), Some(2 * SECOND));
    set(&mut rtc, 0x0b, 0x92, SECOND);
    assert_eq!(get(&mut rtc, 0x0b, SECOND), 0x82, "SET clears its enable");
}

#[test]
fn the_periodic_interrupt_has_its_rate() {
    let mut rtc = rtc();
    for (rate, hertz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        set(&mut rtc, 0x0a, 0x20 | rate, 0);
        set(&mut rtc, 0x0b, 0x42, 0);
        get(&mut rtc, 0x0c, 0);
        for tick in 1..=2 * hertz {
            let at = rtc.deadline().expect("periodic");
            assert_eq!(at, (tick * SECOND).div_ceil(hertz), "{hertz} Hz");
            rtc.advance(at);
            assert!(rtc.irq());
            assert_eq!(get(&mut rtc, 0x0c, at) & 0xc0, 0xc0);
        }
        rtc = self::rtc();
    }
    set(&mut rtc, 0x0a, 0x20, 0);
    assert_eq!(rtc.deadline(), None, "rate 0 is none");
    set(&mut rtc, 0x0a, 0x2f, 0);
    set(&mut rtc, 0x0a, 0x26, SECOND);
    assert_eq!(get(&mut rtc, 0x0c, SECOND) & 0x50, 0x50, "what came before a change of the rate is not lost");
}

#[test]
fn the_alarm_comes_at_its_time_with_wildcards() {
    let alarm = |hour, minute, second| {
        let mut rtc = rtc();
        set(&mut rtc, 5, hour, 0);
        set(&mut rtc, 3, minute, 0);
        set(&mut rtc, 1, second, 0);
        set(&mut rtc, 0x0b, 0x22, 0);
        rtc.deadline().map(|at| at / SECOND)
    };
    // It is 23:59:58.
    assert_eq!(alarm(0x00, 0x00, 0x10), Some(12));
    assert_eq!(alarm(0x23, 0x59, 0x59), Some(1));
    assert_eq!(alarm(0x23, 0x59, 0x58), Some(86_400), "tomorrow");
    assert_eq!(alarm(0xff, 0xff, 0xff), Some(1), "each second");
    assert_eq!(alarm(0xff, 0xff, 0x30), Some(32), "each minute");
    assert_eq!(alarm(0xc0, 0x30, 0x00), Some(2 + 1800), "each hour");
    assert_eq!(alarm(0x01, 0xff, 0xff), Some(2 + 3600));
    assert_eq!(alarm(0x01, 0xff, 0x05), Some(2 + 3600 + 5));
    assert_eq!(alarm(0x24, 0x00, 0x00), None, "no such hour");
    assert_eq!(alarm(0x00, 0x60, 0x00), None);
    let mut rtc = rtc();
    [(5, 0x00), (3, 0x00), (1, 0x10)].iter().for_each(|(index, value)| set(&mut rtc, *index, *value, 0));
    rtc.advance(11 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 11 * SECOND) & 0x20, 0);
    rtc.advance(1000 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 1000 * SECOND) & 0xa0, 0x20, "flagged without its enable, over a jump");
}

#[test]
fn every_alarm_is_where_a_search_by_hand_finds_it() {
    let bcd = |n: u64| (n / 10 * 16 + n % 10) as u8;
    // A spread of wildcards and values; the search goes second by second over two days.
    let fields = [None, Some(0), Some(7), Some(23), Some(59)];
    for hour in fields.into_iter().filter(|hour| hour.is_none_or(|hour| hour < 24)) {
        for minute in fields {
            for second in fields {
                let mut rtc = rtc();
                for (index, field) in [(5, hour), (3, minute), (1, second)] {
                    set(&mut rtc, index, field.map_or(0xff, bcd), 0);
                }
                set(&mut rtc, 0x0b, 0x22, 0);
                let matches = |at: &u64| {
                    let time = (WALL + at) % 86_400;
                    hour.is_none_or(|hour| time / 3600 == hour)
                        && minute.is_none_or(|minute| time / 60 % 60 == minute)
                        && second.is_none_or(|second| time % 60 == second)
                };
                let by_hand = (1..90_000).find(matches).map(|at| at * SECOND);
                assert_eq!(rtc.deadline(), by_hand, "{hour:?} {minute:?} {second:?}");
            }
        }
    }
}

#[test]
fn firmware_finds_the_size_of_memory() {
    let mut rtc = rtc();
    let mut word = |low: u8, high: u8| u16::from_le_bytes([get(&mut rtc, low, 0), get(&mut rtc, high, 0)]);
    assert_eq!(word(0x15, 0x16), 640);
    assert_eq!(word(0x17, 0x18), 0xffff);
    assert_eq!(word(0x30, 0x31), 0xffff);
    assert_eq!(u32::from(word(0x34, 0x35)) << 16, (3 << 30) - (16 << 20));
    assert_eq!((word(0x5b, 0x5c), get(&mut rtc, 0x5d, 0)), (0x4000, 0x01), "5 GiB in units of 64 KiB");
    let mut small = Rtc::new(WALL, 32 << 20, 0);
    assert_eq!(get(&mut small, 0x31, 0), (31 << 10 >> 8) as u8);
}

#[test]
fn reset_keeps_time_and_ram() {
    let mut rtc = rtc();
    set(&mut rtc, 0x7f, 0x5a, 0);
    set(&mut rtc, 0x0b, 0x72, 0);
    rtc.advance(5 * SECOND);
    rtc.reset();
    assert!(!rtc.irq());
    assert_eq!(get(&mut rtc, 0x0b, 5 * SECOND), 0x02);
    assert_eq!(get(&mut rtc, 0x7f, 5 * SECOND), 0x5a);
    assert_eq!(get(&mut rtc, 0, 5 * SECOND), 0x03);
}
