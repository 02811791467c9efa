//! The service itself: tickets in memory, behind a key.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming};

use super::v1::{
    CreateRequest, GetRequest, ListReply, ListRequest, Priority, RemoveReply, RemoveRequest, Ticket, WatchRequest,
    tickets_server::Tickets,
};

/// The pause between two messages of a stream.
const BEAT: Duration = Duration::from_millis(20);

/// Tickets behind a key.
pub struct Service {
    key: String,
    tickets: Mutex<BTreeMap<i64, Ticket>>,
}

impl Service {
    /// A few tickets to begin with.
    pub fn new(key: &str) -> Self {
        let titles = ["Mice in the store", "Door 3 squeaks", "No coffee", "The map is old", "Lamp is dark"];
        let ticket = |(id, title): (i64, &str)| {
            let ticket = Ticket { id, title: title.to_owned(), priority: Priority::Normal.into(), ..Ticket::default() };
            (id, ticket)
        };
        Self { key: key.to_owned(), tickets: Mutex::new((1..).zip(titles).map(ticket).collect()) }
    }

    fn tickets(&self) -> MutexGuard<'_, BTreeMap<i64, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses who does not have the key.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        let given = request.metadata().get("x-api-key").and_then(|value| value.to_str().ok());
        match !self.key.is_empty() && given == Some(self.key.as_str()) {
            true => Ok(request.into_inner()),
            false => Err(Status::unauthenticated("x-api-key is not the key")),
        }
    }

    fn missing(&self, id: i64) -> Status {
        Status::not_found(format!("{} sees no ticket {id}", self.key))
    }
}

#[tonic::async_trait]
impl Tickets for Service {
    type WatchStream = BoxStream<'static, Result<Ticket, Status>>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let wanted = self.admit(request)?.priorities;
        let is_wanted = |ticket: &&Ticket| wanted.is_empty() || wanted.contains(&ticket.priority);
        let tickets = self.tickets().values().filter(is_wanted).cloned().collect();
        Ok(Response::new(ListReply { tickets }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Ticket>, Status> {
        let id = self.admit(request)?.id;
        let found = self.tickets().get(&id).cloned();
        found.map(Response::new).ok_or_else(|| self.missing(id))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Ticket>, Status> {
        let given = self.admit(request)?.ticket.unwrap_or_default();
        if given.title.is_empty() {
            return Err(Status::invalid_argument("a ticket has a title"));
        }
        let mut tickets = self.tickets();
        let id = tickets.keys().next_back().map_or(1, |last| last + 1);
        let ticket = Ticket { id, ..given };
        tickets.insert(id, ticket.clone());
        Ok(Response::new(ticket))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        let id = self.admit(request)?.id;
        let removed = self.tickets().remove(&id);
        removed.map(|_| Response::new(RemoveReply {})).ok_or_else(|| self.missing(id))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let after = self.admit(request)?.after;
        let found: Vec<Ticket> = self.tickets().range(after.saturating_add(1)..).map(|(_, t)| t.clone()).collect();
        let told = futures::stream::iter(found.into_iter().cycle()).then(|ticket| async move {
            tokio::time::sleep(BEAT).await;
            Ok::<_, Status>(ticket)
        });
        Ok(Response::new(told.boxed()))
    }

    async fn import(&self, request: Request<Streaming<CreateRequest>>) -> Result<Response<ListReply>, Status> {
        let mut requests = self.admit(request)?;
        let mut tickets = Vec::new();
        while let Some(next) = requests.message().await? {
            let mut all = self.tickets();
            let id = all.keys().next_back().map_or(1, |last| last + 1);
            let ticket = Ticket { id, ..next.ticket.unwrap_or_default() };
            all.insert(id, ticket.clone());
            tickets.push(ticket);
        }
        Ok(Response::new(ListReply { tickets }))
    }
}
