//! MQTT topic filters (MQTT 5.0 section 4.7): validity, matching, and what the wildcards stood for.

/// Longest topic or filter in bytes (MQTT 5.0 section 1.5.4).
const TOPIC_MAX_BYTES: usize = 65_535;
/// More wildcards than a device name can need.
const CAPTURES_MAX: usize = 9;

/// Why a text is no topic filter. Each message says what to write instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No text.
    #[error("a topic filter has at least one character")]
    Empty,
    /// Longer than MQTT allows.
    #[error("a topic filter has at most 65535 bytes")]
    TooLong,
    /// MQTT forbids it.
    #[error("a topic filter has no null character")]
    Null,
    /// `#` somewhere else.
    #[error("`#` stands for all levels that follow: write it alone, after the last `/`")]
    Hash,
    /// `+` beside other characters.
    #[error("`+` stands for a whole level: write it alone between two `/`")]
    Plus,
    /// More wildcards than can be referred to.
    #[error("at most nine wildcards, `{{1}}` to `{{9}}`")]
    TooManyWildcards,
    /// `$share/…`.
    #[error(
        "shared subscriptions spread a device's readings over several gateways; write the filter without `$share/…/`"
    )]
    Shared,
}

/// Why a template cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without its end, or something else than a digit in it.
    #[error("`{{` begins the number of a wildcard: `{{1}}` to `{{9}}`")]
    Syntax,
    /// A wildcard that the filter does not have.
    #[error("`{{{number}}}`, but the topic filter has {wildcards} wildcards")]
    NoSuchWildcard {
        /// What the template says.
        number: usize,
        /// What the filter has.
        wildcards: usize,
    },
}

/// A valid topic filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > TOPIC_MAX_BYTES {
            return Err(FilterError::TooLong);
        }
        if text.contains('\0') {
            return Err(FilterError::Null);
        }
        if text.starts_with("$share/") {
            return Err(FilterError::Shared);
        }
        let mut levels = text.split('/').peekable();
        let mut wildcards = 0;
        while let Some(level) = levels.next() {
            match level {
                "#" if levels.peek().is_some() => return Err(FilterError::Hash),
                "#" | "+" => wildcards += 1,
                _ if level.contains('#') => return Err(FilterError::Hash),
                _ if level.contains('+') => return Err(FilterError::Plus),
                _ => {}
            }
        }
        if wildcards > CAPTURES_MAX {
            return Err(FilterError::TooManyWildcards);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many wildcards it has.
    pub fn wildcards(&self) -> usize {
        self.0.split('/').filter(|level| matches!(*level, "+" | "#")).count()
    }

    /// What each wildcard stands for in `topic`; `None` if the topic does not match.
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        // [MQTT-4.7.2-1]: a wildcard in the first place does not match topics of the broker's own.
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return None;
        }
        let mut captures = Vec::new();
        let mut rest = Some(topic);
        for level in self.0.split('/') {
            if level == "#" {
                // Also the level before it: `a/#` matches `a`.
                captures.push(rest.unwrap_or(""));
                return Some(captures);
            }
            let (head, tail) = match rest?.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest?, None),
            };
            match level {
                "+" => captures.push(head),
                literal if literal == head => {}
                _ => return None,
            }
            rest = tail;
        }
        rest.is_none().then_some(captures)
    }

    /// Whether some topic matches both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let (mut a, mut b) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (a.next(), b.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
                _ => return false,
            }
        }
    }
}

/// A text with `{1}` … `{9}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Capture(usize),
}

impl Template {
    /// Checks the text against the filter that fills it in.
    pub fn new(text: &str, wildcards: usize) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (number, after) = after.split_once('}').ok_or(TemplateError::Syntax)?;
            let number: usize = number.parse().map_err(|_| TemplateError::Syntax)?;
            if number == 0 || number > wildcards {
                return Err(TemplateError::NoSuchWildcard { number, wildcards });
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Capture(number - 1));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The text with what the wildcards stood for.
    pub fn fill(&self, captures: &[&str]) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Capture(index) => out.push_str(captures.get(*index).copied().unwrap_or_default()),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        // MQTT 5.0 section 4.7.1, examples of the text, and their neighbours.
        let table: &[(&str, &str, Option<&[&str]>)] = &[
            ("sport/tennis/player1/#", "sport/tennis/player1", Some(&[""])),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", Some(&["ranking"])),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", Some(&["score/wimbledon"])),
            ("sport/#", "sport", Some(&[""])),
            ("#", "a/b", Some(&["a/b"])),
            ("#", "$SYS/x", None),
            ("+/x", "$SYS/x", None),
            ("$SYS/#", "$SYS/x", Some(&["x"])),
            ("sport/tennis/+", "sport/tennis/player1", Some(&["player1"])),
            ("sport/tennis/+", "sport/tennis/player1/ranking", None),
            ("sport/+", "sport", None),
            ("sport/+", "sport/", Some(&[""])),
            ("+/+", "/finance", Some(&["", "finance"])),
            ("/+", "/finance", Some(&["finance"])),
            ("+", "/finance", None),
            ("wearables/+/hr", "wearables/watch-7/hr", Some(&["watch-7"])),
            ("wearables/+/hr", "wearables/watch-7/spo2", None),
            ("wearables/+/hr", "wearables/a/b/hr", None),
            ("a/b", "a/b", Some(&[])),
            ("a/b", "A/b", None),
            ("a/b", "a", None),
            ("a", "a/b", None),
            ("+/+/#", "a/b/c/d", Some(&["a", "b", "c/d"])),
        ];
        for (filter, topic, want) in table {
            let found = Filter::new(filter).unwrap().matches(topic);
            assert_eq!(found.as_deref(), *want, "{filter} against {topic}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_reason() {
        for (text, why) in [
            ("", FilterError::Empty),
            ("a\0b", FilterError::Null),
            ("sport/tennis#", FilterError::Hash),
            ("sport/tennis/#/ranking", FilterError::Hash),
            ("sport+", FilterError::Plus),
            ("a/+b/c", FilterError::Plus),
            ("+/+/+/+/+/+/+/+/+/+", FilterError::TooManyWildcards),
            ("$share/group/a", FilterError::Shared),
        ] {
            assert_eq!(Filter::new(text), Err(why), "{text}");
        }
        assert_eq!(Filter::new(&"a".repeat(65_536)), Err(FilterError::TooLong));
    }

    #[test]
    fn overlapping_filters_are_found() {
        let overlap = |a, b| Filter::new(a).unwrap().overlaps(&Filter::new(b).unwrap());
        assert!(overlap("a/+/hr", "a/watch/hr"));
        assert!(overlap("a/#", "a/b/c"));
        assert!(overlap("a/#", "a"));
        assert!(!overlap("a/+/hr", "a/+/spo2"));
        assert!(!overlap("a/+", "a/b/c"));
    }

    #[test]
    fn a_template_is_filled_in_and_refused_where_it_cannot_be() {
        let fill = |text: &str| Template::new(text, 2).map(|t| t.fill(&["x", "y"]));
        assert_eq!(fill("{1}").unwrap(), "x");
        assert_eq!(fill("watch-{2}.{1}").unwrap(), "watch-y.x");
        assert_eq!(fill("plain").unwrap(), "plain");
        assert_eq!(fill("{3}"), Err(TemplateError::NoSuchWildcard { number: 3, wildcards: 2 }));
        assert_eq!(fill("{0}"), Err(TemplateError::NoSuchWildcard { number: 0, wildcards: 2 }));
        assert_eq!(fill("{"), Err(TemplateError::Syntax));
        assert_eq!(fill("{x}"), Err(TemplateError::Syntax));
    }

    proptest! {
        #[test]
        fn a_filter_overlaps_whatever_topic_it_matches(filter in "[ab+#/]{1,8}", topic in "[ab/]{1,8}") {
            if let (Ok(filter), Ok(literal)) = (Filter::new(&filter), Filter::new(&topic))
                && let Some(captures) = filter.matches(&topic)
            {
                prop_assert!(filter.overlaps(&literal));
                prop_assert_eq!(captures.len(), filter.wildcards());
            }
        }
    }
}
