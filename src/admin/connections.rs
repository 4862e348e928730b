//! Requests about open connections: which are meant, and what is done with them.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use hyper::StatusCode;
use ipnet::IpNet;
use tokio::task::spawn_local;

use crate::lifecycle::{MOST_LISTED, Page, Place, Selection, Sort};

use super::api::{EndedReport, OpenConnectionsReport};
use super::asker::Asker;
use super::query::Parameters;
use super::response::{Answered, Refused, json};
use super::view::View;

/// On a page where the request doesn't say.
const LISTED: usize = 100;

impl Parameters {
    /// One page of the connections that are meant.
    ///
    /// # Errors
    /// Which parameter is wrong, and what it is to be.
    pub(super) fn page(mut self) -> Result<(Selection, Page), String> {
        let selection = self.selection()?;
        let sorts = Sort::ALL.iter().map(|sort| sort.as_str()).collect::<Vec<_>>().join(", ");
        let named = |text: &str| Sort::ALL.iter().find(|sort| sort.as_str() == text).copied();
        let page = Page {
            sort: self.take("sort", &format!("one of {sorts}"), named)?.unwrap_or(Sort::Newest),
            after: self.take("after", "what `next` was on the page before", Place::parse)?,
            limit: self.take("limit", &format!("a number from 1 to {MOST_LISTED}"), limit)?.unwrap_or(LISTED),
        };
        self.finish()?;
        Ok((selection, page))
    }

    /// The connections that are to end.
    ///
    /// # Errors
    /// Which parameter is wrong or missing, and what it is to be.
    pub(super) fn selected(mut self) -> Result<Selection, String> {
        let selection = self.selection()?;
        let all = self.take("all", "true", |text| (text == "true").then_some(()))?.is_some();
        self.finish()?;
        if all == (selection == Selection::default()) {
            return Ok(selection);
        }
        Err("say which: by id, client, listener, pool, backend; or all=true alone".to_owned())
    }

    fn selection(&mut self) -> Result<Selection, String> {
        let word = |text: &str| Some(text.to_owned());
        Ok(Selection {
            id: self.take("id", "an id as the access log has it", |text| text.parse().ok())?,
            client: self.take("client", "an address or a network in CIDR form, without a port", network)?,
            listener: self.take("listener", "", word)?,
            pool: self.take("pool", "", word)?,
            backend: self.take("backend", "", word)?,
        })
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn limit(text: &str) -> Option<usize> {
    text.parse::<NonZeroUsize>().ok().map(NonZeroUsize::get).filter(|limit| *limit <= MOST_LISTED)
}

/// Resets the connections, and logs it, whether or not the client waits for the answer.
pub(super) async fn end(query: Option<&str>, asker: Asker, view: &Arc<View>) -> Answered {
    let (selection, view) = (Parameters::of(query)?.selected()?, view.clone());
    // Whoever leaves while it waits has asked for nothing.
    let turn = view.open_connections.turn_to_end().await;
    let ending = spawn_local(async move {
        let _turn = turn;
        let ended = view.open_connections.end(&selection).await;
        let Selection { id, client, listener, pool, backend } = selection;
        tracing::info!(
            event = "connections_ended",
            id = id.map(tracing::field::display),
            client = client.map(tracing::field::display),
            listener,
            pool,
            backend,
            ended,
            by = %asker,
            "an operator has ended connections"
        );
        EndedReport { ended }
    });
    let report = ending.await.map_err(|_| Refused::stopping())?;
    Ok(json(StatusCode::OK, &report))
}

/// One page.
pub(super) async fn list(query: Option<&str>, view: &View) -> Answered {
    let (selection, page) = Parameters::of(query)?.page()?;
    let listing = view.open_connections.list(selection, page).await;
    Ok(json(StatusCode::OK, &OpenConnectionsReport::new(listing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
            .expect("no doubles")
    }

    #[test]
    fn what_is_to_end_is_said_in_known_words() {
        let pool = Selection { pool: Some("app".to_owned()), ..Selection::default() };
        assert_eq!(parameters(&[("pool", "app")]).selected(), Ok(pool));
        assert_eq!(parameters(&[("all", "true")]).selected(), Ok(Selection::default()));
        let refused: [&[(&str, &str)]; 6] = [
            &[],
            &[("all", "yes")],
            &[("all", "true"), ("pool", "app")],
            &[("pool", "app"), ("backnd", "10.0.0.1:80")],
            &[("id", "no id")],
            &[("client", "10.0.0.1:80")],
        ];
        for pairs in refused {
            assert!(parameters(pairs).selected().is_err(), "{pairs:?}");
        }
        assert!(
            Parameters::new([("id", "1"), ("id", "2")].map(|(name, id)| (name.to_owned(), id.to_owned()))).is_err()
        );
    }
}
