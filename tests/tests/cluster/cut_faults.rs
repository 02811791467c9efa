//! A leader that is cut off runs on: it takes itself for the leader while the others elect one of their own. What it is asked
//! meanwhile it must not acknowledge, and what it had begun must not come back.
//!
//! The network, and no process, is hurt: the voters know each other by the addresses of doors, which hand bytes on. Those from
//! and to a voter that is cut off are held back, as packets are that are lost and sent again, and go on once the cut is
//! mended. Administrators ask the voters where they listen.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::block_in_place,
};

use crate::{
    cluster::{HEAL_LIMIT, Place},
    minority::expect_refusal,
    processes::Fleet,
    verdict::judge,
    workload::{Routing, Scene, Workload},
};

const VOTERS: [&str; 3] = ["cp-1", "cp-2", "cp-3"];
const WORKERS: u64 = 5;
/// Before the cut: there is something to lose.
const CALM: Duration = Duration::from_secs(2);
/// The cut lasts at least so long: longer than any election.
const CUT: Duration = Duration::from_secs(6);
/// After it, under load.
const MENDED: Duration = Duration::from_secs(3);
/// The test's own patience with a refusal.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes handed on at once.
const BUFFER: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_histories_stay_linearizable() {
    let wires = Wires::new();
    let fleet = assembled(&wires).await;
    let place = block_in_place(|| place(&fleet));
    let scene = Scene::set(&place).await;
    scene.writable_everywhere(&place).await;
    let ids = scene.admin.voters();
    let load = Workload::start(&scene, WORKERS, Routing::FailOver).await;
    tokio::time::sleep(CALM).await;

    let old = leader(&scene, &ids).await;
    let others: Vec<u64> = ids.into_iter().filter(|id| *id != old).collect();
    let name = VOTERS[ids.iter().position(|id| *id == old).unwrap()];
    wires.cut_off(name);
    let began = Instant::now();
    let new = leader(&scene, &others).await;
    println!("network cut: {name} cut off, another one leads after {:?}", began.elapsed());
    tokio::time::sleep(CUT.saturating_sub(began.elapsed())).await;
    expect_refusal("a write", scene.write(old, "reg-0", PATIENCE).await.map(Some));
    expect_refusal("a read", scene.read(old, "reg-0", PATIENCE).await);
    // The majority does without it.
    let began = Instant::now();
    while let Err(failed) = scene.write(new, "reg-1", PATIENCE).await {
        assert!(began.elapsed() < HEAL_LIMIT, "the majority takes no write: {failed:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }

    wires.mend();
    tokio::time::sleep(MENDED).await;
    let ran = load.stop().await;
    block_in_place(|| fleet.agreed(&VOTERS));
    judge("network cut", &place, &scene, ran).await;
}

/// The one of these that leads by its own word, once one does; of several the one in the latest term.
async fn leader(scene: &Scene, ids: &[u64]) -> u64 {
    let began = Instant::now();
    loop {
        let mut leaders = Vec::new();
        for id in ids {
            if let Ok(status) = scene.admin.status(*id).await
                && status.role == "leader"
            {
                leaders.push((status.term, *id));
            }
        }
        if let Some((_, id)) = leaders.into_iter().max() {
            return id;
        }
        assert!(began.elapsed() < HEAL_LIMIT, "none of {ids:?} leads");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Three voters that know each other by their doors, and an audit log that nobody is cut off from.
async fn assembled(wires: &Wires) -> Fleet {
    let mut fleet = block_in_place(|| Fleet::new("cut"));
    VOTERS.iter().for_each(|name| fleet.add(name, "control-plane"));
    fleet.add("au-1", "audit-log");
    for name in VOTERS {
        let door = wires.door(name, fleet.servers[name].peer).await;
        fleet.doors.insert(name.to_owned(), door);
        fleet.configure(name);
    }
    block_in_place(|| {
        fleet.init("cp-1");
        for name in VOTERS {
            fleet.start(name);
            wires.pids.lock().unwrap().insert(name, fleet.servers[name].pid());
        }
        fleet.start("au-1");
        fleet.agreed(&VOTERS);
        fleet.until("the audit log's node is a member", |f| f.knows("cp-1", "au-1"));
        // It takes records.
        fleet.ok_when_recorded("cp-1", &["cluster", "join-token", "--node", "spare", "--role", "data-plane"]);
    });
    fleet
}

/// The voters as `dev.json` would name them, in their order here.
fn place(fleet: &Fleet) -> Place {
    let node = |name: &str| {
        let server = &fleet.servers[name];
        json!({
            "id": fleet.id("cp-1", name), "pid": server.pid(), "admin": server.admin.to_string(),
            "peer": server.peer.to_string(), "data_dir": server.data(),
        })
    };
    let nodes: [Value; 3] = VOTERS.map(node);
    let described = json!({ "admin": nodes[0]["admin"], "nodes": nodes });
    let data = fleet.path("place");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("dev.json"), described.to_string()).unwrap();
    Place { data, mcp: String::new(), token: String::new(), admin_token: fleet.admin_token.clone() }
}

/// The ways between voters.
#[derive(Clone)]
struct Wires {
    /// Who is cut off.
    cut: Arc<watch::Sender<Option<&'static str>>>,
    pids: Arc<Mutex<BTreeMap<&'static str, u32>>>,
}

/// Between which two a connection is; `None`: one end is no voter's.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: Option<&'static str>,
    to: &'static str,
}

impl Way {
    /// Whether nothing goes this way while somebody is cut off.
    fn is_cut(self, cut: Option<&'static str>) -> bool {
        cut.is_some() && (cut == self.from || cut == Some(self.to))
    }
}

impl Wires {
    fn new() -> Self {
        Self { cut: Arc::new(watch::Sender::new(None)), pids: Arc::default() }
    }

    fn cut_off(&self, name: &'static str) {
        self.cut.send_replace(Some(name));
    }

    fn mend(&self) {
        self.cut.send_replace(None);
    }

    /// Where others reach a voter that listens at `target`.
    async fn door(&self, name: &'static str, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = self.clone();
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                let way = Way { from: wires.owner(from, address), to: name };
                tokio::spawn(wires.clone().carry(client, target, way));
            }
        });
        address
    }

    async fn carry(self, client: TcpStream, target: SocketAddr, way: Way) {
        let Ok(server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::join!(
            pump(from_client, to_server, way, self.cut.subscribe()),
            pump(from_server, to_client, way, self.cut.subscribe())
        );
    }

    /// The voter whose process has the other end of a connection to a door.
    fn owner(&self, from: SocketAddr, door: SocketAddr) -> Option<&'static str> {
        let link = format!("socket:[{}]", inode(from, door)?);
        let pids = self.pids.lock().unwrap();
        pids.iter().find(|(_, pid)| has_open(**pid, &link)).map(|(name, _)| *name)
    }
}

/// Hands bytes on. They are held back, and so is the end of the connection, while one of its ends is cut off.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut cut: watch::Receiver<Option<&'static str>>,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if cut.wait_for(|cut| !way.is_cut(*cut)).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// The kernel's number for the socket at the `from` end of a connection on this machine.
fn inode(from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (in_table(from)?, in_table(to)?);
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let mut line = line.filter(|fields| fields.len() > 9 && fields[1] == from && fields[2] == to);
    line.next()?[9].parse().ok()
}

/// An address as the kernel's table has it: hexadecimal, the bytes of the address in the machine's order.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

fn has_open(pid: u32, link: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|to| to.to_str() == Some(link))
}

#[tokio::test]
async fn a_door_knows_who_comes_and_holds_back_what_crosses_a_cut() {
    let (wires, target) = (Wires::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    wires.pids.lock().unwrap().insert("cp-1", std::process::id());
    let door = wires.door("cp-2", target.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(door).await.unwrap();
    assert_eq!(wires.owner(client.local_addr().unwrap(), door), Some("cp-1"));
    let (mut server, _) = target.accept().await.unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'a');

    for name in ["cp-1", "cp-2"] {
        wires.cut_off(name);
        server.write_all(b"b").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
        assert!(early.is_err(), "a byte came although {name} is cut off: {early:?}");
        wires.mend();
        assert_eq!(client.read_u8().await.unwrap(), b'b');
    }
    // It is none of this connection's business.
    wires.cut_off("cp-3");
    server.write_all(b"c").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'c');
}
