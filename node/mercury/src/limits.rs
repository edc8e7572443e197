//! How much of anything, and why so much. All are enforced where the thing comes in.

use std::time::Duration;

/// Longest name of a network, in bytes: `main`, `test`, or a private chain's.
pub const MAX_NETWORK: usize = 32;
/// Longest envelope as it travels, in bytes: a message with the most that it may hold, and what is around it.
pub const MAX_ENVELOPE: usize = MAX_MESSAGE + 1024;

/// A profile's body, in bytes: a name, some lines about a person, some addresses.
pub const MAX_PROFILE: usize = 16 * 1024;
/// Attributes of a profile. More is a database, not a profile.
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest name of an attribute, in bytes.
pub const MAX_ATTRIBUTE_NAME: usize = 64;
/// A profile's picture, in bytes: 300 pixels wide at good quality.
pub const MAX_PICTURE: u64 = 20 * 1024;
/// The picture's thumbnail, in bytes.
pub const MAX_THUMBNAIL: u64 = 5 * 1024;
/// All blobs of a persona together, in bytes: some dozen photographs that wait to be fetched.
pub const MAX_BLOBS: u64 = 8 * 1024 * 1024;
/// Blobs of a persona; bounds what many tiny ones cost.
pub const MAX_BLOB_COUNT: usize = 1024;
/// How long an upload may take from its offer on, in seconds: then what came of it is thrown away.
pub const UPLOAD_TIME: u64 = DAY;
/// A blob travels in pieces of this size, in bytes; the last may be shorter. Fits one request.
pub const CHUNK: usize = 32 * 1024;

/// A message's body, in bytes, as encrypted.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Mail that waits for one recipient, in bytes: sixty-four of the longest messages.
pub const MAX_MAILBOX: u64 = 4 * 1024 * 1024;
/// Of which from one sender, in bytes: eight persistent ones are needed to fill it.
pub const MAX_MAIL_OF_SENDER: u64 = 512 * 1024;
/// Items that wait for one recipient; bounds what many tiny ones cost.
pub const MAX_MAIL_COUNT: u64 = 16 * 1024;
/// What an item counts beside its bytes: keys, index, and the mark that it was seen.
pub const ITEM_OVERHEAD: u64 = 256;
/// Messages to one recipient whose hashes are remembered until they expire, so that none is delivered twice: one in
/// five seconds for fourteen days. Bounds what two who send and acknowledge without end cost.
pub const MAX_SEEN: u64 = 256 * 1024;
/// Of which from one sender: one in forty seconds.
pub const MAX_SEEN_OF_SENDER: u64 = MAX_SEEN / 8;
/// How long mail waits, in seconds: a long holiday.
pub const MAIL_TIME: u64 = 14 * DAY;
/// Items in one answer to a fetch, and their bytes: what fits one reply of the protocol.
pub const MAX_FETCH: usize = 256;
/// Bytes of items in one answer to a fetch; one item is always given.
pub const MAX_FETCH_BYTES: usize = 512 * 1024;
/// Requests to relate that wait for one recipient. Strangers may fill it: it is small, and the oldest gives way.
pub const MAX_REQUESTS: usize = 64;
/// Longest note with a request to relate, in bytes.
pub const MAX_NOTE: usize = 512;
/// Longest type of a relation and name of an application, in bytes.
pub const MAX_LABEL: usize = 64;

/// Personas that a home hosts.
pub const MAX_HOSTED: usize = 10_000;
/// Relations of one persona, held or asked for.
pub const MAX_RELATIONS: usize = 2_000;
/// Relations that were taken back and are remembered one by one, beside those. Beyond, the oldest are remembered
/// together, by their time.
pub const MAX_REVOKED: usize = 2_000;
/// Less free space on its disk, in bytes, and a home takes nothing more to keep: RocksDB needs some hundred MiB to
/// merge files while it throws away, and the rest is the chain's, which is on the same disk.
pub const MIN_FREE_SPACE: u64 = 2 << 30;
/// From so much free space on, in bytes, it does again: a quarter of a GiB more, so that it does not change its mind
/// with each message.
pub const SPACE_AGAIN: u64 = MIN_FREE_SPACE + (256 << 20);
/// Applications that a session announces.
pub const MAX_APPLICATIONS: usize = 50;
/// Devices of a persona that are logged in at once.
pub const MAX_DEVICES: usize = 8;
/// Addresses of a home in a redirect.
pub const MAX_ADDRESSES: usize = 8;
/// Longest address, in bytes.
pub const MAX_ADDRESS: usize = 256;

/// How long a redirect is kept after a persona has left, in seconds.
pub const REDIRECT_TIME: u64 = 14 * DAY;
/// Redirects that are kept, for each persona that a home may host: all may leave, and as many again who came after
/// them, in fourteen days. 2.5 KiB each. Beyond, those who were hosted for the shortest time give way.
pub const REDIRECTS_FOR_EACH: usize = 2;
/// How long a home's challenge can be answered, in seconds.
pub const CHALLENGE_TIME: u64 = 60;
/// How far clocks may differ, in seconds.
pub const CLOCK_SKEW: u64 = 120;
/// Time to answer a call, in seconds.
pub const CALL_TIME: u64 = 10;
/// Time to join a call after it was accepted, in seconds.
pub const JOIN_TIME: u64 = 30;
/// Time in which the callee's device takes the circuit of a call, in seconds; libp2p's relay waits no longer.
pub const TAKE_TIME: u64 = 60;
/// Calls of one caller that ring at once: of several devices, or to several people.
pub const MAX_CALLS_OF_CALLER: usize = 4;
/// Calls of one caller within the two minutes in which an offer could be shown again.
pub const MAX_OFFERS_OF_CALLER: usize = 32;
/// Calls that ring at a home at once; each does for ten seconds at most.
pub const MAX_CALLS: usize = 1_024;
/// Logged-in devices at a home, of hosted personas and of visitors: some for each of the hosted.
pub const MAX_SESSIONS: usize = 20_000;
/// Of which visitors, so that they cannot keep those who are hosted out.
pub const MAX_VISITORS: usize = MAX_SESSIONS / 2;
/// Personas in one question for presence.
pub const MAX_ASKED: usize = 256;
/// Longest invitation, in seconds.
pub const INVITATION_TIME: u64 = 90 * DAY;
/// Invitations that are open at once.
pub const MAX_INVITATIONS: usize = 10_000;
/// Bans. The owner makes them, each by hand.
pub const MAX_BANS: usize = 100_000;
/// Bans in one answer, each with a reason of at most [`MAX_NOTE`] bytes: what fits one reply of the protocol.
pub const MAX_BANS_TOLD: usize = 512;
/// A day in seconds.
pub const DAY: u64 = 24 * 60 * 60;

/// Longest event, in bytes: a call's offer, or a presence with fifty long names.
pub const MAX_EVENT: usize = 8 * 1024;
/// Time for a request from its first byte until its answer is taken: a call's ten seconds, and a slow line. Who sends
/// half a request or takes no answer is cut off then.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests and events under way on one connection; what comes beyond is dropped. A device rarely has three.
pub const STREAMS_OF_CONNECTION: usize = 16;
/// Streams of the other side that are open on a connection, whatever they are for; what comes beyond is reset. More
/// than anyone needs: [`STREAMS_OF_CONNECTION`], as many of another home's lookups twice over, and some for circuits.
pub const INBOUND_STREAMS: usize = 64;
/// Streams of a connection in all: ours too, and those that were reset while the other side does not read. One that
/// opens more is disconnected.
pub const MAX_STREAMS: usize = 128;
/// Bytes that came on a connection and were not read by what they are for; no more is taken until they are. Three of the
/// longest requests: all that is read at once, so honest devices never have so much waiting. From one address it is
/// 64 MiB.
pub const MAX_UNREAD: usize = 256 * 1024;
/// The same where circuits end, for all connections of the peer together; each has [`MAX_UNREAD`] in any case. The
/// windows of [`MAX_CIRCUITS_OF_PEER`] and [`WINDOW_GROWTH`], twice, since small frames cost more. Less would let a slow
/// reader hold up what else its peer has open.
pub const MAX_UNREAD_OF_CARRIER: usize = 4 << 20;
/// Bytes that were written on a connection's streams and its socket has not taken; whoever writes waits then. An answer of
/// the longest and some short ones: honest devices ask for one long answer at a time. From one address it is 64 MiB.
pub const MAX_UNSENT: usize = 256 * 1024;
/// By so much more for writes of at most [`SHORT_WRITE`]: a ping or a short answer is not held up by long ones.
pub const UNSENT_RESERVE: usize = 64 * 1024;
/// Longest write that may use [`UNSENT_RESERVE`], in bytes.
pub const SHORT_WRITE: usize = 1024;
/// By how much the windows of a connection's streams may grow together, in bytes. With 256 KiB more a circuit to
/// somebody 100 ms away carries 100 Mbit/s.
pub const WINDOW_GROWTH: usize = 1 << 20;
/// Longest frame of the multiplexer, in bytes: what implementations send at most.
pub const MAX_FRAME: usize = 64 * 1024;
/// What it costs to keep a frame that was not read, beside its bytes and its place. Without these two a window of single
/// bytes would cost sixteen megabytes.
pub const FRAME_COST: usize = 56;
/// What its place costs in the lists of frames, which do not shrink: for the most frames that a stream ever had waiting
/// it stays charged until the stream has gone. Yamux's list has 32 bytes for each and ours 4, and both grow to twice
/// what they hold. Honest streams have some dozen waiting.
pub const FRAME_PLACE: usize = 72;
/// Time for the other side to take what is left when a connection is closed.
pub const CLOSE_TIME: Duration = Duration::from_secs(10);
/// Streams of a connection that have not yet said what they are for.
pub const NEGOTIATING_STREAMS: usize = 8;

/// Connections in all: the devices of ten thousand personas, some twice, and other homes. Of 64 places one is kept free:
/// whoever has no session gives way.
pub const MAX_CONNECTIONS: usize = 24_000;
/// Connections of one peer: one, a second one that replaces it, and what hole punching needs.
pub const MAX_CONNECTIONS_OF_PEER: usize = 4;
/// Connections from one address (an IPv6 network of 64 bits counts as one): a school behind one router.
pub const MAX_CONNECTIONS_OF_ADDRESS: usize = 256;
/// Of which without a session, once [`SESSION_GRACE`] is over: other homes, and people who look at profiles.
pub const MAX_WITHOUT_SESSION_OF_ADDRESS: usize = 64;
/// The same from one network, which is an IPv4 address, or an IPv6 network of 48 bits: one customer may have 65,536 of 64
/// bits, and a carrier as many customers.
pub const MAX_WITHOUT_SESSION_OF_NETWORK: usize = 256;
/// Time to log in before a connection counts as one without a session.
pub const SESSION_GRACE: Duration = Duration::from_secs(15);
/// Connections that have not shown who they are. Beyond, the oldest of the most crowded network gives way: who has shown it
/// within a tenth of [`HANDSHAKE_TIME`] is not pushed out by fewer than 5,000 newcomers a second.
pub const MAX_PENDING: usize = 2_048;
/// Of which from one address.
pub const MAX_PENDING_OF_ADDRESS: usize = 64;
/// And from one network.
pub const MAX_PENDING_OF_NETWORK: usize = 256;
/// Connections that we make ourselves at a time: to other homes, and to see whether a device can be reached.
pub const MAX_PENDING_OUTGOING: u32 = 64;
/// Addresses that we dial because others told of them, in all: a query of the directory asks some twenty homes.
pub const DIALS: Rate = Rate { burst: 256, per_second: 32 };
/// Of which at one target. Who has many homes there is waited for; who is none is not flooded.
pub const DIALS_OF_TARGET: Rate = Rate { burst: 16, per_second: 1 };
/// New connections from one address: how many at once, and per second. Each costs the home a handshake.
pub const CONNECTIONS_RATE_OF_ADDRESS: Rate = Rate { burst: 512, per_second: 16 };
/// Requests of one peer: a blob of eight megabytes in chunks at once, then fifty a second.
pub const REQUESTS_OF_PEER: Rate = Rate { burst: 600, per_second: 50 };
/// Requests from one address.
pub const REQUESTS_OF_ADDRESS: Rate = Rate { burst: 4_000, per_second: 500 };
/// Messages of the directory from one peer, its answers to us among them. Where there are a few homes, one that
/// publishes and one that is published to have 16 a second each.
pub const LOOKUPS_OF_PEER: Rate = Rate { burst: 1_024, per_second: 64 };
/// The same from one address.
pub const LOOKUPS_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 256 };
/// How often a peer may tell or ask what somebody is: at the start, and when its addresses change.
pub const INTRODUCTIONS_OF_PEER: Rate = Rate { burst: 64, per_second: 1 };
/// The same from one address: two or three for each connection, and one for each where ours change.
pub const INTRODUCTIONS_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 64 };
/// What a peer does at the relay: each reservation and each circuit counts about two, where it is refused, too.
pub const RELAYING_OF_PEER: Rate = Rate { burst: 256, per_second: 2 };
/// The same from one address: a school whose devices come back at once.
pub const RELAYING_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 64 };
/// The same from one address by those who are not logged in there or call nobody: they are refused, after the relay has
/// looked through all connections. A device asks once, and logs in.
pub const RELAYING_OF_STRANGERS: Rate = Rate { burst: 256, per_second: 4 };
/// Log-ins, announcements and log-outs of one peer: some dozen commands of a script at once. For each of them all relations of a persona are looked through,
/// which takes 0.65 ms, and 10 ms from the disk.
pub const SESSIONS_OF_PEER: Rate = Rate { burst: 128, per_second: 2 };
/// The same from one address: all devices of a school when the home comes back, then a sixth of the home's time.
pub const SESSIONS_OF_ADDRESS: Rate = Rate { burst: 512, per_second: 16 };
/// Who of so many personas is there counts as one of these, begun ones too. For each a key is looked up, which takes 3 µs
/// where it is not there. Of 2,000 relations it takes 32 tokens.
pub const PRESENCES_OF_SESSION: usize = 64;
/// Requests that are refused for their rate before their peer is disconnected: it does not listen.
pub const MAX_REFUSED: u32 = 1_000;
/// Requests of one peer that are under way.
pub const MAX_REQUESTS_OF_PEER: usize = 32;
/// Requests that are under way in all.
pub const MAX_REQUESTS_IN_ALL: usize = 8_192;
/// Bytes of answers that their peers have not taken yet. Beyond, the peer whose answers are the most is
/// disconnected.
pub const MAX_ANSWERS: usize = 64 << 20;
/// Events that one device has not confirmed yet; the others wait here.
pub const EVENTS_UNDER_WAY: usize = 8;
/// Events that wait for one device: a presence of each relation, [`MAX_REQUESTS`] requests to relate, and room. Beyond,
/// the device is disconnected; it finds what it missed when it comes back.
pub const MAX_EVENTS: usize = 4_096;
/// Their bytes.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// A connection without a session and without anything under way is closed after this.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// Time to show who one is: three round trips, also by Tor.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(4);
/// Between two pings on a connection. Ten thousand connections are 170 pings a second.
pub const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Time for the answer to one.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A circuit's time.
pub const CIRCUIT_TIME: Duration = Duration::from_secs(30 * 60);
/// Bytes through a circuit, both ways together: a call with pictures, not a film.
pub const CIRCUIT_BYTES: u64 = 64 << 20;
/// Circuits at once. One whose ends collude can make the relay hold [`MAX_UNREAD_OF_CARRIER`] for each of the two.
pub const MAX_CIRCUITS: usize = 256;
/// Circuits of one device.
pub const MAX_CIRCUITS_OF_PEER: usize = 4;
/// Circuits that one persona has opened, with all its devices.
pub const MAX_CIRCUITS_OF_PERSONA: usize = 8;
/// Circuits that were opened from one address: eight such addresses are needed to take all.
pub const MAX_CIRCUITS_OF_ADDRESS: usize = 32;
/// For how long a reservation holds: a year, which no connection lasts. It ends with the session instead: the relay
/// panics where one runs out while a device is slow to take the answer to its renewal.
pub const RESERVATION_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest record of the directory, in bytes: two halves of a proof, and a contact with eight long addresses.
pub const MAX_RECORD: usize = 4 * 1024;
/// Records of others' personas that a home keeps: at most 128 MiB, mostly a quarter of that.
pub const MAX_FOREIGN_RECORDS: usize = 32_768;
/// For how long a record is kept; its home publishes it anew before.
pub const RECORD_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two rounds in which a home publishes all its records.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// Records that a home publishes in a second: ten thousand in twenty minutes.
pub const PUBLISH_EACH_SECOND: usize = 8;
/// Queries of the directory under way at once.
pub const MAX_PUBLICATIONS: usize = 64;
/// Records that one home may bring: each costs three signatures to verify, and three for the one it replaces.
pub const RECORDS_OF_PEER: Rate = Rate { burst: 512, per_second: 16 };
/// Records that the homes at one address may bring.
pub const RECORDS_OF_ADDRESS: Rate = Rate { burst: 1_024, per_second: 32 };

/// How often something may happen: a bucket of `burst` tokens, filled by `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Tokens that come back each second.
    pub per_second: u32,
}
