//! What came of a connection, from what both applications got, what passed on the first
//! path and what both ends report.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_dataplane::app::pattern::Differences;
use braid_dataplane::mptcp::Findings;

use super::cell::{Case, sha256};
use crate::middlebox::catalogue::Oracle;
use crate::report::matrix::Verdict;

/// What one run left behind.
#[derive(Clone, Default, Debug)]
pub struct Evidence {
    /// Both applications know that it is over.
    pub ended: bool,
    /// An end went on as TCP.
    pub fell_back: bool,
    /// A further subflow came to be.
    pub joined: bool,
    /// A subflow was reset or given up.
    pub reset: bool,
    /// How many paths there were.
    pub paths: usize,
    /// What the client's application got.
    pub client: Received,
    /// What the server's application got.
    pub server: Received,
    /// From the start to the end of the later end.
    pub elapsed: Duration,
    /// What the boxes did.
    pub boxes: BTreeMap<String, u64>,
    /// What the ends count.
    pub counters: BTreeMap<String, u64>,
    /// What the ends say.
    pub notes: Vec<String>,
}

/// What one application got.
#[derive(Clone, Default, Debug)]
pub struct Received {
    /// How much.
    pub bytes: u64,
    /// What its peer had sent.
    sent: u64,
    /// It was told that this is all.
    finished: bool,
    /// First and last byte that differ from what was sent.
    wrong: Option<(u64, u64)>,
    /// How many times the longest mapping it takes to cover what differs.
    stretches: u64,
    sha256: String,
    /// What passed towards it on the first path, by flow.
    forwarded: Vec<Vec<u8>>,
}

impl Received {
    pub(super) fn from_bytes(
        bytes: Vec<u8>,
        sent: u64,
        finished: bool,
        forwarded: Vec<Vec<u8>>,
    ) -> Self {
        let mut differences = Differences::default();
        differences.take(0, &bytes);
        Self {
            bytes: bytes.len() as u64,
            sent,
            finished,
            wrong: differences.wrong,
            stretches: differences.stretches,
            sha256: sha256(&bytes),
            forwarded,
        }
    }

    pub(super) fn from_findings(
        findings: &Findings,
        sent: u64,
        finished: bool,
        forwarded: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            bytes: findings.received,
            sent,
            finished: finished || findings.eof,
            wrong: findings.wrong,
            stretches: findings.stretches,
            sha256: findings.sha256.clone(),
            forwarded,
        }
    }

    pub(super) fn nothing(sent: u64, forwarded: Vec<Vec<u8>>) -> Self {
        Self::from_bytes(Vec::new(), sent, false, forwarded)
    }

    fn short(&self) -> bool {
        self.finished && self.bytes < self.sent
    }

    fn long(&self) -> bool {
        self.bytes > self.sent
    }

    /// It is what passed on the first path, all of it if it believes to have all.
    fn as_forwarded(&self) -> bool {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        self.forwarded.iter().any(|stream| {
            stream
                .get(..length)
                .is_some_and(|prefix| sha256(prefix) == self.sha256)
                && (!self.finished || stream.len() == length)
        })
    }
}

/// The verdict, and what speaks for it.
pub(super) fn judge(case: &Case, e: &Evidence) -> (Verdict, String) {
    for (who, got) in [("client", &e.client), ("server", &e.server)] {
        if let Some(why) = wrong(case, e, got) {
            return (Verdict::Corrupted, format!("{who}: {why}"));
        }
    }
    if !e.ended {
        return (Verdict::Stalled, String::new());
    }
    let complete = e.client.finished && e.server.finished;
    let lost = e.reset || (e.paths > 1 && !e.joined);
    let verdict = match (complete, e.fell_back, lost) {
        (false, ..) => Verdict::Error,
        // Plain TCP has nothing to fall back from.
        (true, true, _) if !case.pair.plain() => Verdict::Fallback,
        (true, _, true) if !case.pair.plain() => Verdict::Reset,
        _ => Verdict::Mptcp,
    };
    (verdict, String::new())
}

/// Why what an application got cannot be right.
fn wrong(case: &Case, e: &Evidence, got: &Received) -> Option<String> {
    if got.wrong.is_none() && !got.short() && !got.long() {
        return None;
    }
    let told = format!(
        "{} of {} bytes, wrong {:?}, finished {}",
        got.bytes, got.sent, got.wrong, got.finished
    );
    if case
        .boxes
        .is_none_or(|(entry, _)| entry.oracle == Oracle::Sent)
    {
        return Some(told);
    }
    // Plain TCP would have delivered what passed on its one path.
    let alone = e.paths == 1 && !case.checksum;
    if got.as_forwarded() && (e.fell_back || alone || case.pair.plain()) {
        return None;
    }
    // Unnoticed without a checksum: nothing but the mappings that were changed, on each path
    // one at least, and their neighbours where the length changed, may differ.
    let edits = ["edits", "answers", "bytes changed"];
    let edits: u64 = edits.iter().filter_map(|name| e.boxes.get(*name)).sum();
    if !case.checksum && !got.short() && !got.long() && got.stretches <= 2 * edits {
        return None;
    }
    let passed: Vec<usize> = got.forwarded.iter().map(Vec::len).collect();
    Some(format!("{told}; passed: {passed:?}"))
}

#[cfg(test)]
mod tests {
    use braid_dataplane::app::pattern;

    use super::*;
    use crate::gauntlet::cell::Pair;
    use crate::middlebox::catalogue::{Placement, entry};

    fn case(id: &str, placement: Placement, checksum: bool) -> Case {
        let entry = entry(id).expect("it is in the catalogue");
        Case {
            boxes: Some((entry, &entry.variants[0])),
            placement,
            pair: Pair::parse("bk").expect("two letters"),
            checksum,
            bytes: 10_000,
        }
    }

    fn sent() -> Vec<u8> {
        let mut bytes = vec![0; 10_000];
        pattern::fill(0, &mut bytes);
        bytes
    }

    fn evidence(client: Vec<u8>, forwarded: Vec<u8>, paths: usize) -> Evidence {
        Evidence {
            ended: true,
            joined: paths > 1,
            paths,
            client: Received::from_bytes(client, 10_000, true, vec![forwarded]),
            server: Received::from_bytes(sent(), 10_000, true, vec![sent()]),
            ..Evidence::default()
        }
    }

    #[test]
    fn whole_streams_are_as_good_as_the_ends_say() {
        let case = case("A1", Placement::First, true);
        let mut e = evidence(sent(), sent(), 2);
        assert_eq!(judge(&case, &e).0, Verdict::Mptcp);
        e.reset = true;
        assert_eq!(judge(&case, &e).0, Verdict::Reset);
        e.fell_back = true;
        assert_eq!(judge(&case, &e).0, Verdict::Fallback);
        e.ended = false;
        assert_eq!(judge(&case, &e).0, Verdict::Stalled);
        e = evidence(sent(), sent(), 2);
        e.joined = false;
        assert_eq!(judge(&case, &e).0, Verdict::Reset, "the path is not in use");
    }

    #[test]
    fn too_little_too_much_and_wrong_bytes_are_corruption() {
        let case = case("A1", Placement::One, true);
        for bytes in [sent()[..9_999].to_vec(), [sent(), vec![0]].concat()] {
            let e = evidence(bytes.clone(), bytes, 1);
            assert_eq!(judge(&case, &e).0, Verdict::Corrupted);
        }
        let mut e = evidence(sent()[..9_999].to_vec(), sent(), 1);
        e.client.finished = false;
        assert_eq!(judge(&case, &e).0, Verdict::Error, "and it was told so");
    }

    #[test]
    fn an_altered_stream_is_right_where_tcp_would_have_delivered_it() {
        let mut altered = sent();
        altered.splice(500..500, *b"12345");
        let mut e = evidence(altered.clone(), altered.clone(), 1);
        assert_eq!(
            judge(&case("F4", Placement::One, true), &e).0,
            Verdict::Corrupted
        );
        e.fell_back = true;
        assert_eq!(
            judge(&case("F4", Placement::One, true), &e).0,
            Verdict::Fallback
        );
        // Not all that passed.
        let mut e = evidence(altered[..9_000].to_vec(), altered, 1);
        e.fell_back = true;
        assert_eq!(
            judge(&case("F4", Placement::One, true), &e).0,
            Verdict::Corrupted
        );
    }

    #[test]
    fn an_unnoticed_change_may_not_spread() {
        let mut altered = sent();
        altered[77] ^= 1;
        let mut e = evidence(altered.clone(), sent(), 2);
        assert_eq!(
            judge(&case("F1", Placement::First, false), &e).0,
            Verdict::Corrupted,
            "no box did that"
        );
        e.boxes.insert("bytes changed".to_owned(), 1);
        assert_eq!(
            judge(&case("F1", Placement::First, false), &e).0,
            Verdict::Mptcp
        );
        assert_eq!(
            judge(&case("F1", Placement::First, true), &e).0,
            Verdict::Corrupted
        );
        altered.pop();
        let e = evidence(altered, sent(), 2);
        assert_eq!(
            judge(&case("F1", Placement::First, false), &e).0,
            Verdict::Corrupted
        );
    }

    #[test]
    fn findings_of_braid_count_like_bytes() {
        use braid_dataplane::mptcp::Findings;
        let mut altered = sent();
        altered[77] ^= 1;
        let findings = Findings {
            received: 10_000,
            eof: true,
            wrong: Some((77, 77)),
            stretches: 1,
            sha256: sha256(&altered),
        };
        let got =
            |stream: &[u8]| Received::from_findings(&findings, 10_000, true, vec![stream.to_vec()]);
        assert!(got(&altered).as_forwarded());
        assert!(!got(&sent()).as_forwarded());
        assert!(!got(&altered[..9_000]).as_forwarded());
    }
}
