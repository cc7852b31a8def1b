//! The one measure behind every "did you mean".

/// The known word that is most like the given one, if any is like it.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let score = |known: &&str| strsim::jaro_winkler(&word.to_ascii_lowercase(), known);
    let best = known.into_iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) > 0.75).then_some(best)
}
