//! Seconds since 1970 and the calendar (proleptic Gregorian), both ways.

/// Seconds of a day.
pub const DAY: i64 = 86_400;
/// The last second of the year 9999.
const LAST: i64 = 253_402_300_799;

/// A date and a time of day. Fields of [`Date::from_seconds`] are in range; [`Date::seconds`] takes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: i64,
    /// Month, from 1.
    pub month: i64,
    /// Day of the month, from 1.
    pub day: i64,
    /// Hour, minute, second.
    pub time: [i64; 3],
    /// Day of the week, Sunday is 0. Not an input.
    pub weekday: i64,
}

impl Date {
    /// The date of this second since 1970; 1970 or 9999 if it lies beyond.
    pub fn from_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(0, LAST);
        let (days, rest) = (seconds / DAY, seconds % DAY);
        // Years that begin in March have their leap day at the end: eras of 400 years, days from 0000-03-01.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            time: [rest / 3600, rest / 60 % 60, rest % 60],
            // 1970 began on a Thursday.
            weekday: (days + 4) % 7,
        }
    }

    /// Its seconds since 1970. A day or time beyond its range runs over into the next; a month is brought into range.
    pub fn seconds(&self) -> i64 {
        let month = self.month.clamp(1, 12);
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * from_march + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let [hour, minute, second] = self.time;
        days * DAY + hour * 3600 + minute * 60 + second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates_are_where_they_should_be() {
        let date = Date::from_seconds(951_827_696);
        assert_eq!((date.year, date.month, date.day), (2000, 2, 29), "2000 was a leap year");
        assert_eq!((date.time, date.weekday), ([12, 34, 56], 2), "a Tuesday");
        let date = Date::from_seconds(4_107_542_400);
        assert_eq!((date.year, date.month, date.day), (2100, 3, 1), "2100 is none");
        assert_eq!(Date::from_seconds(-5).year, 1970);
        assert_eq!(Date::from_seconds(i64::MAX).year, 9999);
    }

    proptest! {
        #[test]
        fn both_ways_agree(seconds in 0..=LAST) {
            let date = Date::from_seconds(seconds);
            prop_assert_eq!(date.seconds(), seconds);
            prop_assert!((1..=12).contains(&date.month) && (1..=31).contains(&date.day));
        }

        #[test]
        fn the_next_day_is_a_day_later(day in 0..LAST / DAY) {
            let (a, b) = (Date::from_seconds(day * DAY), Date::from_seconds((day + 1) * DAY));
            prop_assert_eq!((a.weekday + 1) % 7, b.weekday);
            prop_assert!(b.day == a.day + 1 || b.day == 1 && a.day >= 28);
        }
    }
}
