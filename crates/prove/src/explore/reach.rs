//! States from which others can be reached.

/// By state: true if one of these can be reached from it.
pub(super) fn leading_to(mut open: Vec<u32>, sources: &[Vec<u32>]) -> Vec<bool> {
    let mut leads = vec![false; sources.len()];
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut leads[id as usize], true) {
            open.extend(sources[id as usize].iter().filter(|source| !leads[**source as usize]));
        }
    }
    leads
}
