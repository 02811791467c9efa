//! What the tools find.

use std::collections::{BTreeSet, HashMap};

use provost_data_pipeline::Usage;
use serde::{Deserialize, Serialize};

use super::{
    RagError, answer, embed,
    fusion::fuse,
    ingest::blocking,
    service::{Outcome, Rag, Standing},
    store::Passage,
    words,
};

/// What each way of searching gives to be put together.
const CANDIDATES: usize = 60;
/// What has less of the best's score than this was not found by that way of searching.
const NOTABLE_SHARE: f64 = 0.5;
/// Results if the caller does not say.
const DEFAULT_LIMIT: usize = 5;
/// Bytes of a question.
pub(super) const MAX_QUERY_BYTES: usize = 4_096;
/// Documents of one list if the caller does not say, and at most.
pub(super) const LIST_LIMITS: (usize, usize) = (100, 500);
/// Bytes of text that are read at once.
const MAX_READ_BYTES: usize = 64 << 10;

/// How is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Both, put together.
    #[default]
    Hybrid,
    /// By what texts mean.
    Vector,
    /// By their words.
    Keyword,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchArguments {
    query: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentsArguments {
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadArguments {
    document: String,
    #[serde(default)]
    from: Option<usize>,
    #[serde(default)]
    to: Option<usize>,
}

impl Rag {
    /// Pieces that answer a question, best first.
    pub(super) async fn search(&self, asked: SearchArguments) -> Result<Outcome, RagError> {
        let SearchArguments { query, limit, mode } = asked;
        if query.trim().is_empty() || query.len() > MAX_QUERY_BYTES {
            return Err(RagError::Arguments(format!("`query` needs 1 to {MAX_QUERY_BYTES} bytes of text")));
        }
        let limit = self.limit(limit)?;
        let store = self.store().await?;
        let standing = self.standing_to_ask()?;
        let (mut near, mut tokens) = (Vec::new(), 0);
        if mode != Mode::Keyword {
            let model = embed::model(&*self.inference, &self.tenant, &self.model)?;
            let (vector, read) = embed::question(&*self.inference, &self.tenant, &model, &query).await?;
            let view = self.vectors.view();
            tokens = read;
            near = blocking(move || view.nearest(&vector, CANDIDATES))
                .await
                .map_err(|cause| RagError::Index(format!("the vectors cannot be searched: {cause}")))?;
        }
        let question = words::question(&query).filter(|_| mode != Mode::Vector);
        let matching = match question {
            Some(question) => store.matching(&question, CANDIDATES).await?,
            None => Vec::new(),
        };
        let ids: BTreeSet<i64> = near.iter().map(|(id, _)| *id).chain(matching.iter().map(|(id, _)| *id)).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        // In the order of documents and places, which is the same on every node; ids are not.
        let passages = store.passages(&ids).await?;
        let places: HashMap<i64, usize> = passages.iter().enumerate().map(|(place, p)| (p.id, place)).collect();
        let near = ranked(near.iter().map(|(id, cosine)| (*id, f64::from(*cosine))), &places);
        let matching = ranked(matching.iter().map(|(id, score)| (*id, -score)), &places);
        let ranking = match mode {
            Mode::Hybrid => {
                let (near, matching) = (notable(&near), notable(&matching));
                fuse(&[near.as_slice(), matching.as_slice()])
            }
            Mode::Vector => near,
            Mode::Keyword => matching,
        };
        let results: Vec<(&Passage, f64)> =
            ranking.into_iter().filter_map(|(place, score)| Some((passages.get(place)?, score))).take(limit).collect();
        let usage = Usage { rows: results.len() as u64, tokens_in: tokens, ..Usage::default() };
        Ok(Outcome { result: answer::results(&results, mode, &standing), usage })
    }

    /// The documents and how they stand, in order of path.
    pub(super) async fn documents(&self, asked: DocumentsArguments) -> Result<Outcome, RagError> {
        let limit = asked.limit.unwrap_or(LIST_LIMITS.0);
        if !(1..=LIST_LIMITS.1).contains(&limit) {
            return Err(RagError::Arguments(format!("`limit` is 1 to {}", LIST_LIMITS.1)));
        }
        let documents = self.store().await?.documents().await?;
        let standing = self.standing.lock().clone();
        let after = asked.after.unwrap_or_default();
        let mut rest = documents.values().filter(|document| document.path.as_str() > after.as_str());
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let has_more = rest.next().is_some();
        let usage = Usage { rows: page.len() as u64, ..Usage::default() };
        Ok(Outcome { result: answer::documents(&page, has_more, &standing), usage })
    }

    /// Lines of a document.
    pub(super) async fn read(&self, asked: ReadArguments) -> Result<Outcome, RagError> {
        let ReadArguments { document: path, from, to } = asked;
        let (from, to) = (from.unwrap_or(1), to.unwrap_or(usize::MAX));
        if from == 0 || to < from {
            return Err(RagError::Arguments("lines count from 1, and `to` is not before `from`".to_owned()));
        }
        self.standing_to_ask()?;
        let found = self.store().await?.text(&path).await?;
        let Some((document, text)) = found else {
            return Err(RagError::Document(format!("there is no document `{path}`; `documents` lists what there is")));
        };
        if let Some(reason) = &document.failure {
            return Err(RagError::Document(format!("`{path}` cannot be read: {reason}")));
        }
        let (mut lines, mut bytes, mut total) = (Vec::new(), 0, 0);
        for (n, line) in (1_usize..).zip(text.lines()) {
            total = n;
            // One after the other, as long as there is room; the first in any case.
            let fits = bytes + line.len() < MAX_READ_BYTES;
            if n <= to && n == from + lines.len() && (fits || lines.is_empty()) {
                bytes += line.len() + 1;
                lines.push(beginning(line));
            }
        }
        if lines.is_empty() {
            return Err(RagError::Arguments(format!("`{path}` has {total} lines")));
        }
        let usage = Usage { rows: lines.len() as u64, ..Usage::default() };
        Ok(Outcome { result: answer::lines(&document, from, &lines, total), usage })
    }

    fn limit(&self, asked: Option<usize>) -> Result<usize, RagError> {
        let limit = asked.unwrap_or(DEFAULT_LIMIT.min(self.max_results));
        if (1..=self.max_results).contains(&limit) {
            Ok(limit)
        } else {
            Err(RagError::Arguments(format!("`limit` is 1 to {}", self.max_results)))
        }
    }

    /// How far the index is. Nothing is answered out of a folder that is not there: it may have been taken away.
    fn standing_to_ask(&self) -> Result<Standing, RagError> {
        let standing = self.standing.lock().clone();
        match &standing.trouble {
            Some(cause @ RagError::Corpus(_)) => Err(cause.clone()),
            _ => Ok(standing),
        }
    }
}

/// By score, and by place where that is equal.
fn ranked(found: impl Iterator<Item = (i64, f64)>, places: &HashMap<i64, usize>) -> Vec<(usize, f64)> {
    let mut found: Vec<(usize, f64)> = found.filter_map(|(id, score)| Some((*places.get(&id)?, score))).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found
}

/// A line as far as it fits into one answer.
fn beginning(line: &str) -> &str {
    let end = (0..=line.len().min(MAX_READ_BYTES)).rev().find(|at| line.is_char_boundary(*at));
    line.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// What a way of searching did find: in a small corpus everything is in both orders, and would count.
fn notable(ranked: &[(usize, f64)]) -> Vec<usize> {
    let least = ranked.first().map_or(0.0, |(_, best)| best * NOTABLE_SHARE);
    ranked.iter().take_while(|(_, score)| *score >= least).map(|(place, _)| *place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_behind_the_best_is_not_put_together() {
        assert_eq!(notable(&[(3, 0.8), (1, 0.4), (2, 0.39)]), [3, 1]);
        assert!(notable(&[]).is_empty() && notable(&[(1, -0.1)]).is_empty());
    }

    #[test]
    fn equal_scores_are_in_the_order_of_documents() {
        let places = HashMap::from([(70, 0), (50, 1), (60, 2)]);
        assert_eq!(
            ranked([(60, 1.0), (50, 2.0), (70, 1.0), (99, 9.0)].into_iter(), &places),
            [(1, 2.0), (0, 1.0), (2, 1.0)]
        );
    }

    #[test]
    fn a_line_is_cut_at_a_character() {
        let long = format!("{}é", "x".repeat(MAX_READ_BYTES - 1));
        assert_eq!(beginning(&long).len(), MAX_READ_BYTES - 1);
        assert_eq!(beginning("short"), "short");
    }
}
