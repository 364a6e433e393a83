//! The generator: valid material made by the library, and in each invalid case just one thing broken, signed and hashed again as a
//! hostile author could. All seeds are fixed.

mod at_hand;
mod authority;
mod bodies;
mod carried;
mod charters;
mod checkpoints;
mod encoding;
mod events;
mod evidence;
mod first;
mod follow;
mod frames;
mod holding;
mod hostile;
mod identities;
mod limits;
mod log;
mod notes;
mod part;
mod pco;
mod places;
mod reads;
mod recovery;
mod restored;
mod rights;
mod runs;
mod scene;
mod shown;
mod trees;
mod unvoided;
mod versions;
mod void;
mod world;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::case::{self, Case, Verdict};

/// The cases made so far, by path.
#[derive(Default)]
pub(super) struct Kit {
    files: BTreeMap<String, String>,
}

/// All files, by path below the kit's folder.
pub(crate) fn kit() -> BTreeMap<String, String> {
    let mut kit = Kit::default();
    encoding::cases(&mut kit);
    frames::cases(&mut kit);
    identities::cases(&mut kit);
    events::cases(&mut kit);
    runs::cases(&mut kit);
    rights::cases(&mut kit);
    holding::cases(&mut kit);
    authority::cases(&mut kit);
    recovery::cases(&mut kit);
    places::cases(&mut kit);
    first::cases(&mut kit);
    limits::cases(&mut kit);
    carried::cases(&mut kit);
    reads::cases(&mut kit);
    trees::cases(&mut kit);
    checkpoints::cases(&mut kit);
    notes::cases(&mut kit);
    at_hand::cases(&mut kit);
    charters::cases(&mut kit);
    evidence::cases(&mut kit);
    restored::cases(&mut kit);
    follow::cases(&mut kit);
    part::cases(&mut kit);
    shown::cases(&mut kit);
    versions::cases(&mut kit);
    void::cases(&mut kit);
    unvoided::cases(&mut kit);
    bodies::cases(&mut kit);
    pco::cases(&mut kit);
    kit.files
}

/// A case in the making.
pub(super) struct Draft<'a> {
    kit: &'a mut Kit,
    folder: &'static str,
    slug: String,
    case: Case,
    left_out: &'static [&'static str],
}

impl Kit {
    /// `folder/RULE-slug.json`.
    pub(super) fn case(&mut self, folder: &'static str, rule: &str, slug: &str, title: &str, what: &str) -> Draft<'_> {
        let case = Case {
            kit: 1,
            rule: rule.into(),
            title: title.into(),
            what: what.into(),
            source: None,
            keys: Value::Null,
            input: Value::Null,
            verdict: Verdict::Valid,
            refusal: None,
            expect: Value::Null,
        };
        Draft { kit: self, folder, slug: slug.into(), case, left_out: &[] }
    }
}

impl Draft<'_> {
    pub(super) fn keys(mut self, keys: Value) -> Self {
        self.case.keys = keys;
        self
    }

    pub(super) fn source(mut self, source: &str) -> Self {
        self.case.source = Some(source.into());
        self
    }

    pub(super) fn input(mut self, input: Value) -> Self {
        self.case.input = input;
        self
    }

    /// Leaves members out of `expect`: those that would be most of the file.
    pub(super) fn without(mut self, members: &'static [&'static str]) -> Self {
        self.left_out = members;
        self
    }

    /// The case is valid.
    pub(super) fn valid(self) {
        self.finish(Verdict::Valid, None);
    }

    /// The case is invalid; no number stands for it on the wire.
    pub(super) fn invalid(self) {
        self.finish(Verdict::Invalid, None);
    }

    /// The case is invalid and refused with this number.
    pub(super) fn refused(self, code: u16) {
        self.finish(Verdict::Invalid, Some(code));
    }

    /// Takes what the library computes as what is expected, after the verdict was found to be the one that the case states.
    fn finish(mut self, verdict: Verdict, refusal: Option<u16>) {
        self.case.verdict = verdict;
        self.case.refusal = refusal;
        let (outcome, mut facts) = crate::run::run(&self.case);
        let name = format!("{}/{}-{}.json", self.folder, self.case.rule, self.slug);
        match (&outcome, verdict) {
            (Ok(()), Verdict::Valid) => {}
            (Err(fault), Verdict::Invalid) if fault.refusal == refusal => {}
            _ => panic!("{name}: {verdict:?} {refusal:?} is stated, found {outcome:?}, {:?}", facts.get("outcomes")),
        }
        facts.retain(|name, _| !self.left_out.contains(&name.as_str()));
        if !facts.is_empty() && (verdict == Verdict::Valid || facts.contains_key("outcomes")) {
            self.case.expect = Value::Object(facts);
        }
        let taken = self.kit.files.insert(name.clone(), case::to_text(&self.case));
        assert!(taken.is_none(), "{name} is made twice");
    }
}
