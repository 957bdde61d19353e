//! Each fault that the machine can be given breaks what it says and nothing else: the facts of the program `faults` on a
//! sound machine and on each broken one, compared.

use machine_tests::{Exit, Knobs, Machine, expect, guest_machine};

/// The facts of the program with this fault, and its own final check.
fn facts(fault: Option<&str>) -> Vec<String> {
    let knobs = Knobs { fault: fault.map(String::from).into_iter().collect(), ..Knobs::default() };
    let outcome = expect(&Machine { knobs, ..guest_machine("faults", "") }, Exit::Success);
    outcome.facts("fact").map(String::from).collect()
}

/// A fact by its first key.
fn fact<'a>(facts: &'a [String], key: &str) -> Option<&'a str> {
    let start = format!("{key}=");
    facts.iter().find(|fact| fact.starts_with(&start)).map(String::as_str)
}

/// A number in a fact: `key=NUMBER`.
fn number(fact: &str, key: &str) -> u64 {
    let start = format!("{key}=");
    let word = fact.split(' ').find_map(|word| word.strip_prefix(start.as_str()));
    word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number {key} in `{fact}`"))
}

/// Keys of the facts that differ between two runs, or are in one only.
fn differing(sound: &[String], broken: &[String]) -> Vec<String> {
    let key = |fact: &String| fact.split('=').next().unwrap_or_default().to_owned();
    let mut keys: Vec<String> = sound.iter().filter(|fact| !broken.contains(fact)).map(key).collect();
    keys.extend(broken.iter().filter(|fact| !sound.contains(fact)).map(key));
    keys.sort();
    keys.dedup();
    keys
}

#[test]
fn a_sound_machine_has_everything() {
    let facts = facts(None);
    for key in ["secondary", "ept", "unrestricted", "mtf", "global-ctrl-switch"] {
        assert_eq!(fact(&facts, key), Some(format!("{key}=allowed").as_str()));
    }
    for key in ["exits", "strings"] {
        let fact = fact(&facts, key).expect(key);
        assert_eq!(number(fact, "counted"), number(fact, "want"), "{fact}");
    }
    assert_eq!(fact(&facts, "string-with-violations"), Some("string-with-violations=6 want=6"));
    assert_eq!(fact(&facts, "overflows"), Some("overflows=100 pmis=100 status=100"));
}

#[test]
fn what_is_taken_away_is_away_and_nothing_else() {
    let sound = facts(None);
    let cases: [(&str, &[&str], &str); 6] = [
        ("no-ept", &["ept", "exits", "string-with-violations", "unrestricted"], "ept=missing"),
        ("no-unrestricted", &["unrestricted"], "unrestricted=missing"),
        ("no-mtf", &["mtf"], "mtf=missing"),
        ("atom", &["signature"], "signature=0x506f1"),
        (
            "no-vmx",
            &[
                "ept",
                "exits",
                "global-ctrl-switch",
                "mtf",
                "secondary",
                "string-with-violations",
                "unrestricted",
                "vmx",
                "vmx-cpuid",
                "vmxe",
            ],
            "vmx=missing why=NoVmx",
        ),
        (
            "no-pmu",
            &[
                "exits",
                "global-ctrl",
                "global-ctrl-switch",
                "overflows",
                "pmu-version",
                "string-with-violations",
                "strings",
            ],
            "pmu-version=0 general=0 fixed=0 width=0",
        ),
    ];
    for (fault, keys, new) in cases {
        let broken = facts(Some(fault));
        assert_eq!(differing(&sound, &broken), keys, "{fault}");
        assert!(broken.iter().any(|fact| fact == new), "{fault}: no `{new}` in {broken:?}");
    }
}

#[test]
fn vmx_is_locked_off_by_the_firmware() {
    let broken = facts(Some("vmx-locked"));
    assert_eq!(fact(&broken, "vmx-cpuid"), Some("vmx-cpuid=1"), "CPUID still reports it");
    assert_eq!(fact(&broken, "vmx"), Some("vmx=missing why=Locked"));
}

#[test]
fn counts_are_wrong_as_asked() {
    let sound = facts(None);
    let broken = facts(Some("overcount:4"));
    assert_eq!(differing(&sound, &broken), ["exits", "string-with-violations"]);
    let exits = fact(&broken, "exits").expect("exits");
    // One too many every four exits.
    assert_eq!(number(exits, "counted") - number(exits, "want"), number(exits, "exits") / 4);

    let broken = facts(Some("undercount-rep"));
    assert_eq!(differing(&sound, &broken), ["string-with-violations"]);
    assert_eq!(fact(&broken, "string-with-violations"), Some("string-with-violations=5 want=6"));

    let broken = facts(Some("lost-pmi:4"));
    assert_eq!(differing(&sound, &broken), ["overflows"]);
    assert_eq!(fact(&broken, "overflows"), Some("overflows=100 pmis=75 status=100"));
}

/// `#` of `differing` itself: it must see additions, removals and changes.
#[test]
fn differences_are_found() {
    let list = |facts: &[&str]| facts.iter().map(|fact| fact.to_string()).collect::<Vec<_>>();
    let sound = list(&["a=1", "b=2", "c=3"]);
    assert_eq!(differing(&sound, &list(&["a=1", "b=9", "d=4"])), ["b", "c", "d"]);
    assert!(differing(&sound, &sound).is_empty());
}
