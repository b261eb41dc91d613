//! The gauntlet's bars, on the entries where stacks are known to differ. The whole matrix
//! is `braid-bench gauntlet`.

use std::time::Duration;

use braid_bench::gauntlet::{self, Case, Environment, Pair, explain, plan, shortfalls};
use braid_bench::middlebox::catalogue::{Placement, entry};
use braid_bench::report::matrix::{Cell, Matrix, Verdict};
use braid_bench::testbed::Result;
use braid_bench::testbed::requirement::programs;

use crate::support::braid_turn;

fn environment() -> Environment {
    Environment {
        programs: programs(),
        ..Environment::default()
    }
}

/// Runs the first variant of entries, where `wanted` says so.
fn matrix(ids: &[&str], pairs: &[&str], wanted: impl Fn(&Case) -> bool) -> Result<Matrix> {
    let pairs: Vec<Pair> = pairs.iter().filter_map(|p| Pair::parse(p)).collect();
    let cases = plan(&pairs, true, |entry| ids.contains(&entry.id));
    let mut matrix = Matrix::default();
    for case in cases.iter().filter(|case| wanted(case)) {
        let cell = case.cell(&environment(), 1)?;
        eprintln!("{}", explain(&cell));
        assert!(
            cell.acted,
            "the box found nothing to do: {}",
            explain(&cell)
        );
        matrix.cells.push(cell);
    }
    assert!(!matrix.cells.is_empty());
    Ok(matrix)
}

/// What Linux fails: no cell between two braids stalls or is corrupted, and each comes out
/// as RFC 8684 allows.
#[test]
fn braids_pass_where_kernels_fail() -> Result<()> {
    let Some(_turn) = braid_turn("gauntlet: braid - braid", &[]) else {
        return Ok(());
    };
    let ids = ["B13", "B14", "B15", "B18", "D4", "D5", "F2", "F4", "F5"];
    let matrix = matrix(&ids, &["bb"], |case| case.placement == Placement::One)?;
    for cell in &matrix.cells {
        assert!(cell.as_allowed, "{}", explain(cell));
    }
    assert_eq!(matrix.failures().count(), 0);
    Ok(())
}

/// Checksums on two paths: what one box spoils, the other path carries, byte for byte.
#[test]
fn two_paths_outlive_a_box_on_one() -> Result<()> {
    let Some(_turn) = braid_turn("gauntlet: two paths", &[]) else {
        return Ok(());
    };
    let matrix = matrix(&["C1", "D4", "F6"], &["bb"], |case| {
        case.checksum && matches!(case.placement, Placement::First | Placement::Joined)
    })?;
    assert_eq!(matrix.failures().count(), 0);
    assert_eq!(shortfalls(&matrix), Vec::<String>::new());
    Ok(())
}

/// With a kernel at the other end nothing is worse than between two kernels. The entries
/// are those where kernels always come out the same.
#[test]
fn a_kernel_peer_is_no_worse_off_with_braid() -> Result<()> {
    let Some(_turn) = braid_turn("gauntlet: mixed pairs", &[]) else {
        return Ok(());
    };
    let matrix = matrix(
        &["A1", "B1", "B2", "B5", "B12", "F1"],
        &["kk", "kb", "bk"],
        |case| case.placement == Placement::One && case.checksum,
    )?;
    assert_eq!(shortfalls(&matrix), Vec::<String>::new());
    Ok(())
}

/// 20 MB each way over two paths.
fn long(boxed: bool) -> Result<Cell> {
    let normalizer = entry("G3").expect("it is in the catalogue");
    let case = Case {
        boxes: boxed.then_some((normalizer, &normalizer.variants[0])),
        placement: Placement::Both,
        pair: Pair::parse("bb").expect("two letters"),
        checksum: false,
        bytes: 20_000_000,
    };
    let cell = case.cell(&environment(), 1)?;
    eprintln!("{}", explain(&cell));
    assert_eq!(cell.worst(), Some(Verdict::Mptcp), "{}", explain(&cell));
    Ok(cell)
}

/// A box that takes back no window finds none taken back.
#[test]
fn no_window_ever_shrinks() -> Result<()> {
    let Some(_turn) = braid_turn("gauntlet: window-shrink normalizer", &[]) else {
        return Ok(());
    };
    let (mut with, mut without) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let cell = long(true)?;
        assert!(!cell.acted, "{}", explain(&cell));
        with = with.min(cell.seconds);
        without = without.min(long(false)?.seconds);
    }
    assert!(
        with <= without * 1.2,
        "{with} s, {without} s without the box"
    );
    assert!(with < gauntlet::LIMIT.as_secs_f64() - Duration::from_secs(5).as_secs_f64());
    Ok(())
}
