//! The lines typed before, the newest few of them.

use super::editor::Line;

/// Lines kept.
pub const KEPT: usize = 16;

/// The lines, newest last.
#[derive(Debug)]
pub struct History {
    lines: [Line; KEPT],
    count: usize,
    /// How far back the shown line is; 0 = it is being typed.
    back: usize,
}

impl History {
    /// Nothing typed yet.
    pub const fn new() -> Self {
        History { lines: [const { Line::new() }; KEPT], count: 0, back: 0 }
    }

    /// Keeps a line, unless it is empty or the same as the last one.
    pub fn add(&mut self, line: &str) {
        self.back = 0;
        if line.trim().is_empty() || self.at(1).is_some_and(|last| last == line) {
            return;
        }
        if self.count == KEPT {
            self.lines.rotate_left(1);
            self.count -= 1;
        }
        let place = &mut self.lines[self.count];
        place.clear();
        // It has the same capacity as the editor's.
        let _ = place.push_str(line);
        self.count += 1;
    }

    /// The line before the one that is shown.
    pub fn older(&mut self) -> Option<&str> {
        if self.back >= self.count {
            return None;
        }
        self.back += 1;
        self.at(self.back)
    }

    /// The line after the one that is shown; an empty one after the newest.
    pub fn newer(&mut self) -> Option<&str> {
        self.back = self.back.checked_sub(1)?;
        Some(self.at(self.back).unwrap_or(""))
    }

    /// 1 = the newest.
    fn at(&self, back: usize) -> Option<&str> {
        let index = self.count.checked_sub(back).filter(|_| back > 0)?;
        self.lines.get(index).map(|line| line.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_back_and_forth() {
        let mut history = History::new();
        assert_eq!(history.older(), None);
        assert_eq!(history.newer(), None);
        ["a", "b", "b", " ", "c"].iter().for_each(|line| history.add(line));
        assert_eq!(history.older(), Some("c"));
        assert_eq!(history.older(), Some("b"));
        assert_eq!(history.older(), Some("a"));
        assert_eq!(history.older(), None);
        assert_eq!(history.newer(), Some("b"));
        assert_eq!(history.newer(), Some("c"));
        assert_eq!(history.newer(), Some(""));
        assert_eq!(history.newer(), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::new();
        (0..KEPT + 5).for_each(|n| history.add(&std::format!("{n}")));
        let kept: std::vec::Vec<_> =
            core::iter::from_fn(|| history.older().map(std::string::String::from)).collect();
        assert_eq!(kept.len(), KEPT);
        assert_eq!((kept[0].as_str(), kept[KEPT - 1].as_str()), ("20", "5"));
    }
}
