//! Just enough of Rust's lexical structure to tell code from comments and strings.

/// The text with comments, strings and characters blanked out; every line keeps its number and columns.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` itself if none begins there.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => find(chars, at, |c, _| c == '\n'),
        '/' if next(1) == '*' => block_comment(chars, at),
        '"' => string(chars, at + 1),
        'b' if next(1) == '"' && !in_word => string(chars, at + 2),
        'r' | 'b' if !in_word => raw_string(chars, at),
        '\'' if next(1) == '\\' => find(chars, at + 3, |c, _| c == '\'').saturating_add(1).min(chars.len()),
        // A character, not a lifetime: the quote closes after one.
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char, usize) -> bool) -> usize {
    (from..chars.len()).find(|&i| wanted(chars[i], i)).unwrap_or(chars.len())
}

/// Block comments nest.
fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

/// The end of a string whose opening quote is before `from`.
fn string(chars: &[char], from: usize) -> usize {
    let mut i = from;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"..."`, `r#"..."#`, `br#"..."#`; `at` itself if it is none of them.
fn raw_string(chars: &[char], at: usize) -> usize {
    let mut i = at + usize::from(chars[at] == 'b');
    if chars.get(i) != Some(&'r') {
        return at;
    }
    i += 1;
    let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return at;
    }
    let closes = |i: usize| chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
    find(chars, i + 1, |c, i| c == '"' && closes(i)).saturating_add(1 + hashes).min(chars.len())
}

/// Whether `word` stands in `line` as a word of its own.
pub fn has_word(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        for (text, left) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("un\"safe") + 1"#, "f(          ) + 1"),
            ("r#\"a \" b\"# c", "           c"),
            ("br\"x\" c", "      c"),
            ("'\"' x '\\'' y", "    x      y"),
            ("&'a str", "&'a str"),
            ("number\"x\"", "number   "),
            ("let c = '\\n'; d", "let c =     ; d"),
        ] {
            assert_eq!(code_only(text), left, "{text}");
        }
    }

    #[test]
    fn an_open_end_is_no_trap() {
        for text in ["\"abc", "/* abc", "r#\"abc", "'\\", "b", "r#"] {
            assert_eq!(code_only(text).chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn words_have_boundaries() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(has_word("x=(unsafe)", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(!has_word("is_unsafe", "unsafe"));
    }
}
