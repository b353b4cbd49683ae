//! A strict reader of Prometheus' text format, version 0.0.4.

use std::collections::{BTreeMap, HashSet};

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// A metric family of the page.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// Samples by name, which ends in `_bucket`, `_sum` or `_count` in a histogram.
    pub samples: Vec<(String, Labels, f64)>,
}

/// Families of a page, by name.
#[derive(Debug, Default)]
pub struct Page(pub BTreeMap<String, Family>);

impl Page {
    /// Parses a page; any violation of the format fails the test.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends with a line feed");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        let mut seen = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(!families.contains_key(name), "a family appears twice: {line}");
                families.insert(name.into(), Family { help: help.into(), ..Family::default() });
                current = name.into();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert_eq!(name, current, "TYPE follows HELP");
                let family = families.get_mut(name).unwrap();
                assert!(family.kind.is_empty() && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                family.kind = kind.into();
            } else {
                let (name, labels, value) = sample(line);
                let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family: {line}"));
                let base = match family.kind.as_str() {
                    "histogram" => {
                        ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it)).unwrap_or(&name)
                    }
                    _ => &name,
                };
                assert_eq!(base, current, "samples stand below their family: {line}");
                assert!(seen.insert((name.clone(), labels.clone())), "a sample appears twice: {line}");
                assert!(family.kind != "counter" || value >= 0.0, "{line}");
                family.samples.push((name, labels, value));
            }
        }
        let page = Self(families);
        page.0.iter().filter(|(_, family)| family.kind == "histogram").for_each(|(name, it)| check_buckets(name, it));
        page
    }

    /// Returns the value of the one sample with these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}: {:?}", self.0.get(name)))
    }

    /// Returns the value of the sample with these labels, if it exists.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let samples = self.0.values().flat_map(|it| &it.samples);
        samples.filter(|(it, of, _)| it == name && *of == wanted).map(|(_, _, value)| *value).next()
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|it| it.is_ascii_alphabetic() || it == '_')
        && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
}

/// `name{label="value",…} value`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("{line}"));
            assert!(labels.insert(label.into(), value).is_none(), "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    (name.into(), labels, value)
}

/// Splits a text at the closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other @ ('\\' | '"') => value.push(other),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

/// Checks that buckets rise up to `+Inf`, which counts all observations.
fn check_buckets(name: &str, family: &Family) {
    let mut by_labels: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").expect("a bucket has a bound");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            by_labels.entry(labels).or_default().push((bound, *value));
        }
    }
    for (labels, buckets) in &by_labels {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}: {buckets:?}");
        let of = |suffix: &str| {
            let found = family.samples.iter().find(|(it, of, _)| *it == format!("{name}{suffix}") && of == labels);
            found.unwrap_or_else(|| panic!("{name}{suffix} {labels:?}")).2
        };
        assert_eq!(buckets.last().copied(), Some((f64::INFINITY, of("_count"))), "{name} {labels:?}");
        assert!(of("_sum") >= 0.0);
    }
    let histograms = family.samples.iter().filter(|(it, ..)| it.ends_with("_count")).count();
    assert_eq!(histograms, by_labels.len(), "{name}");
}

#[test]
fn the_reader_is_strict() {
    let page = Page::parse("# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\\\"\\n\\\\\"} 1\na_total 2\n");
    assert_eq!((page.value("a_total", &[("b", "c\"\n\\")]), page.value("a_total", &[])), (1.0, 2.0));
    for wrong in [
        "a 1\n",
        "# HELP a x\n# TYPE a gauge\na 1",
        "# HELP a x\n# TYPE a gauge\nb 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"c} 1\n",
        "# HELP a x\n# TYPE a gauge\na one\n",
        "# HELP a x\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a x\n# TYPE a gauge\n# HELP a x\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(std::panic::catch_unwind(|| Page::parse(wrong)).is_err(), "{wrong}");
    }
}
