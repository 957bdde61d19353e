//! What the kernel says of a recording and of a replay in its `@@ record` and `@@ replay` lines, as data.

use std::collections::BTreeMap;

/// The `key=value` words of one line; a value in quotation marks may hold spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Takes a line apart. Words without `=` are passed over.
    pub fn parse(line: &str) -> Self {
        let mut fields = BTreeMap::new();
        let mut rest = line.trim();
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.rsplit(char::is_whitespace).next().unwrap_or_default();
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            fields.insert(key.to_owned(), value.to_owned());
            rest = next;
        }
        Fields(fields)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The value of a key as a number, decimal or with 0x; none where it is missing or no number.
    pub fn number(&self, key: &str) -> Option<u64> {
        let text = self.get(key)?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// All of them, by key.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The value of `event`.
    pub fn event(&self) -> &str {
        self.get("event").unwrap_or_default()
    }
}

/// The lines `@@ WORD ...` of a console, taken apart, in their order.
pub fn of<'a>(console: &'a str, word: &'a str) -> impl Iterator<Item = Fields> + 'a {
    console.lines().filter_map(move |line| {
        let rest = said(line)?.strip_prefix(word)?;
        rest.starts_with(' ').then(|| Fields::parse(rest))
    })
}

/// What a line for programs says; the guest may have left half a line before it.
fn said(line: &str) -> Option<&str> {
    line.trim_end().split_once("@@ ").map(|(_, rest)| rest)
}

/// The newest line `@@ WORD event=EVENT ...` of a console.
pub fn last(console: &str, word: &str, event: &str) -> Option<Fields> {
    let mark = format!("@@ {word} event={event}");
    let line = console.rmatch_indices(&mark).map(|(at, _)| &console[at..]).next()?;
    Some(Fields::parse(line.lines().next().unwrap_or_default()))
}

/// What the guest says its whole execution comes to: the lines from the one that contains `FINGERPRINT` up to the guest's last
/// word (`DONE`, or the hypervisor's word of its end).
pub fn fingerprint(console: &str) -> Option<String> {
    let from = console.find("FINGERPRINT")?;
    let end = |line: &&str| !line.contains("@@ DONE") && !line.contains(ENDED) && !line.contains(STOPPED);
    let lines = console[from..].lines().take_while(end).filter(|line| !is_ours(line));
    let lines = lines.filter(|line| !line.trim().is_empty());
    Some(lines.map(|line| line.trim_end().to_owned() + "\n").collect())
}

/// What the guest has written on its console: all between its start and its end but the hypervisor's own lines.
pub fn guest_console(console: &str) -> String {
    let mut lines = console.lines().skip_while(|line| !line.contains("@@ vm event=started")).skip(1);
    let guest = lines.by_ref().take_while(|line| !line.contains(ENDED) && !line.contains(STOPPED));
    guest.filter(|line| !is_ours(line)).map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A text without white space, to compare what two guests have said: where a line of the hypervisor's came, the guest's own is cut
/// in two.
pub fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What the shell says when the line is its own again.
const ENDED: &str = "[the guest has ended";
/// What the kernel says of the guest's end.
const STOPPED: &str = "@@ vm event=stopped";

/// Whether the hypervisor says it: a line for programs, or for people as its log writes them.
fn is_ours(line: &str) -> bool {
    let marks = [
        "@@ record ",
        "@@ replay ",
        "@@ log-channel ",
        "@@ paging mode=",
        "@@ vm ",
        "[the line is the guest's",
    ];
    let logged = || {
        let words = line.split_once("] cpu").map(|(_, rest)| rest.split_whitespace());
        words
            .and_then(|mut words| words.nth(1))
            .is_some_and(|word| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level)))
    };
    marks.iter().any(|mark| line.contains(mark)) || logged()
}

/// The words for levels in the kernel's log.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let fields = Fields::parse(" event=diverged entry=12 n=0x10 why=\"hash is another\" page= last");
        assert_eq!(
            (fields.event(), fields.number("entry"), fields.number("n")),
            ("diverged", Some(12), Some(16))
        );
        assert_eq!((fields.get("why"), fields.get("page")), (Some("hash is another"), Some("")));
        assert_eq!((fields.get("last"), fields.number("why")), (None, None));
        assert_eq!(Fields::parse("no words"), Fields::default());
        assert_eq!(Fields::parse("why=\"no end").get("why"), Some("no end"));
    }

    #[test]
    fn lines_are_found_behind_what_the_guest_left() {
        let console = "x\r\nlogin: @@ replay event=progress entry=3\r\n@@ replayed event=no\n@@ replay event=ended entry=4\r\n";
        let entries: Vec<_> = of(console, "replay").map(|fields| fields.number("entry")).collect();
        assert_eq!(entries, [Some(3), Some(4)]);
        assert_eq!(last(console, "replay", "progress").unwrap().number("entry"), Some(3));
        assert_eq!(last(console, "replay", "diverged"), None);
    }

    #[test]
    fn what_the_guest_says_is_told_from_what_we_say() {
        let console = "boot\n@@ vm event=started name=a\nhello\r\n[    4.3] cpu0 info  said by us\n@@ record event=progress bytes=1\n@@ FINGERPRINT\n12\r\n\
                       @@ replay event=progress entry=1\n34\n@@ DONE up=3\n\n[the guest has ended; x]\n@@ vm event=stopped name=a\nlate\n";
        assert_eq!(fingerprint(console).unwrap(), "FINGERPRINT\n12\n34\n");
        assert_eq!(guest_console(console), "hello\n@@ FINGERPRINT\n12\n34\n@@ DONE up=3\n\n");
        assert_eq!(fingerprint("nothing"), None);
        let cut = "@@ FINGERPRINT a=\r\n@@ replay event=progress entry=1\r\n7\n@@ DONE\n";
        let whole = "@@ FINGERPRINT a=7\n@@ DONE\n";
        assert_eq!([cut, whole].map(|one| squeezed(&fingerprint(one).unwrap())), ["FINGERPRINTa=7"; 2]);
    }
}
