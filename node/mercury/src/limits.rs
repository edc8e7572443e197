//! All limits, with their reasons. Each is enforced where data comes in.

use std::time::Duration;

/// Maximum length in bytes of a network's name: `main`, `test`, or that of a private chain.
pub const MAX_NETWORK: usize = 32;
/// Maximum length in bytes of an envelope on the wire: a message of the greatest length, and the fields around it.
pub const MAX_ENVELOPE: usize = MAX_MESSAGE + 1024;

/// Maximum length in bytes of a profile's body: a name, some lines about a person, some addresses.
pub const MAX_PROFILE: usize = 16 * 1024;
/// Maximum number of attributes of a profile. More would be a database, not a profile.
pub const MAX_ATTRIBUTES: usize = 64;
/// Maximum length in bytes of an attribute's name.
pub const MAX_ATTRIBUTE_NAME: usize = 64;
/// Maximum length in bytes of a profile's picture: 300 pixels wide at good quality.
pub const MAX_PICTURE: u64 = 20 * 1024;
/// Maximum length in bytes of the picture's thumbnail.
pub const MAX_THUMBNAIL: u64 = 5 * 1024;
/// Maximum total bytes of all blobs of a persona: some dozen photographs waiting to be fetched.
pub const MAX_BLOBS: u64 = 8 * 1024 * 1024;
/// Maximum number of blobs of a persona; bounds the cost of many tiny ones.
pub const MAX_BLOB_COUNT: usize = 1024;
/// Seconds that an upload may take from its offer on; after that it is discarded.
pub const UPLOAD_TIME: u64 = DAY;
/// Bytes of a chunk, in which blobs are transferred; the last may be shorter. Fits one request.
pub const CHUNK: usize = 32 * 1024;

/// Maximum length in bytes of a message's body, as encrypted.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Maximum total bytes of mail waiting for one recipient: sixty-four of the longest messages.
pub const MAX_MAILBOX: u64 = 4 * 1024 * 1024;
/// Maximum total bytes of that mail from one sender: filling it takes eight persistent senders.
pub const MAX_MAIL_OF_SENDER: u64 = 512 * 1024;
/// Maximum number of items waiting for one recipient; bounds the cost of many tiny ones.
pub const MAX_MAIL_COUNT: u64 = 16 * 1024;
/// Bytes that an item counts besides its content: keys, index, and the mark that it was seen.
pub const ITEM_OVERHEAD: u64 = 256;
/// Maximum number of messages to one recipient whose hashes are remembered until they expire, so that none is
/// delivered twice: one per five seconds for fourteen days. Bounds the cost of two personas that send and
/// acknowledge without end.
pub const MAX_SEEN: u64 = 256 * 1024;
/// Maximum number of those from one sender: one per forty seconds.
pub const MAX_SEEN_OF_SENDER: u64 = MAX_SEEN / 8;
/// Seconds that mail waits: a long holiday.
pub const MAIL_TIME: u64 = 14 * DAY;
/// Maximum number of items in one answer to a fetch.
pub const MAX_FETCH: usize = 256;
/// Maximum total bytes of items in one answer to a fetch, so that it fits one reply of the protocol; one item is
/// always given.
pub const MAX_FETCH_BYTES: usize = 512 * 1024;
/// Maximum number of relation requests waiting for one recipient. Strangers may fill it: it is small, and the
/// oldest is dropped.
pub const MAX_REQUESTS: usize = 64;
/// Maximum length in bytes of the note in a relation request.
pub const MAX_NOTE: usize = 512;
/// Maximum length in bytes of a relation's type and an application's name.
pub const MAX_LABEL: usize = 64;

/// Maximum number of personas that a home hosts.
pub const MAX_HOSTED: usize = 10_000;
/// Maximum number of relations of one persona, held or requested.
pub const MAX_RELATIONS: usize = 2_000;
/// Maximum number of revoked relations that are remembered individually, besides those. Beyond, the oldest are
/// remembered together, by their time.
pub const MAX_REVOKED: usize = 2_000;
/// With less free disk space than this, in bytes, a home stores nothing more: RocksDB needs some hundred MiB to
/// merge files even while data is deleted, and the chain on the same disk needs the rest.
pub const MIN_FREE_SPACE: u64 = 2 << 30;
/// From this much free space on, in bytes, it stores data again: a quarter of a GiB more, so that it does not
/// switch with each message.
pub const SPACE_AGAIN: u64 = MIN_FREE_SPACE + (256 << 20);
/// Maximum number of applications that a session announces.
pub const MAX_APPLICATIONS: usize = 50;
/// Maximum number of devices of a persona that are logged in at once.
pub const MAX_DEVICES: usize = 8;
/// Maximum number of addresses of a home in a redirect.
pub const MAX_ADDRESSES: usize = 8;
/// Maximum length in bytes of an address.
pub const MAX_ADDRESS: usize = 256;

/// Seconds that a redirect is kept after a persona has left.
pub const REDIRECT_TIME: u64 = 14 * DAY;
/// Redirects that are kept per persona that a home may host: within fourteen days all may leave, and as many more
/// who came after them. 2.5 KiB each. Beyond, the redirects of those hosted for the shortest time are dropped.
pub const REDIRECTS_FOR_EACH: usize = 2;
/// Seconds within which a home's challenge can be answered.
pub const CHALLENGE_TIME: u64 = 60;
/// Seconds by which clocks may differ.
pub const CLOCK_SKEW: u64 = 120;
/// Seconds to answer a call.
pub const CALL_TIME: u64 = 10;
/// Seconds to join a call after it was accepted.
pub const JOIN_TIME: u64 = 30;
/// Seconds within which the callee's device must accept the circuit of a call; libp2p's relay waits no longer.
pub const TAKE_TIME: u64 = 60;
/// Maximum number of calls of one caller that ring at once, from several devices or to several people.
pub const MAX_CALLS_OF_CALLER: usize = 4;
/// Maximum number of calls of one caller within the two minutes in which an offer could be replayed.
pub const MAX_OFFERS_OF_CALLER: usize = 32;
/// Maximum number of calls that ring at a home at once; each rings for ten seconds at most.
pub const MAX_CALLS: usize = 1_024;
/// Maximum number of logged-in devices at a home, of hosted personas and visitors: some for each hosted persona.
pub const MAX_SESSIONS: usize = 20_000;
/// Maximum number of those that are visitors, so that visitors cannot keep hosted personas out.
pub const MAX_VISITORS: usize = MAX_SESSIONS / 2;
/// Maximum number of personas in one presence request.
pub const MAX_ASKED: usize = 256;
/// Longest validity of an invitation, seconds.
pub const INVITATION_TIME: u64 = 90 * DAY;
/// Maximum number of open invitations.
pub const MAX_INVITATIONS: usize = 10_000;
/// Maximum number of bans. The owner makes each by hand.
pub const MAX_BANS: usize = 100_000;
/// Maximum number of bans in one answer, each with a reason of at most [`MAX_NOTE`] bytes: what fits one reply of
/// the protocol.
pub const MAX_BANS_TOLD: usize = 512;
/// A day in seconds.
pub const DAY: u64 = 24 * 60 * 60;

/// Maximum length in bytes of an event: a call's offer, or a presence with fifty long names.
pub const MAX_EVENT: usize = 8 * 1024;
/// Time for a request from its first byte until its answer is taken: a call's ten seconds, and a slow line. A peer
/// that sends half a request or does not take the answer is cut off then.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of requests and events in progress on one connection; further ones are dropped. A device rarely
/// has three.
pub const STREAMS_OF_CONNECTION: usize = 16;
/// Maximum number of open streams that the remote opened on a connection, for any purpose; further ones are reset.
/// More than anyone needs: [`STREAMS_OF_CONNECTION`], twice as many for another home's lookups, and some for
/// circuits.
pub const INBOUND_STREAMS: usize = 64;
/// Maximum number of streams of a connection in total, including ours and those that were reset while the remote
/// does not read. A peer that opens more is disconnected.
pub const MAX_STREAMS: usize = 128;
/// Maximum bytes received on a connection that its streams have not read; no more is read from the socket until
/// they are. Three of the longest requests, which are read at once, so honest devices never have so much waiting.
/// From one address it is 64 MiB.
pub const MAX_UNREAD: usize = 256 * 1024;
/// The same for the ends of circuits, for all connections of the peer together; each has [`MAX_UNREAD`] in any
/// case. The windows of [`MAX_CIRCUITS_OF_PEER`] circuits and [`WINDOW_GROWTH`], twice, since small frames cost
/// more. With less, a slow reader would hold up the other streams of its peer.
pub const MAX_UNREAD_OF_CARRIER: usize = 4 << 20;
/// Maximum bytes written on a connection's streams that its socket has not taken; writers wait then. One longest
/// answer and some short ones: honest devices request one long answer at a time. From one address it is 64 MiB.
pub const MAX_UNSENT: usize = 256 * 1024;
/// Extra bytes for writes of at most [`SHORT_WRITE`]: a ping or a short answer is not held up by long ones.
pub const UNSENT_RESERVE: usize = 64 * 1024;
/// Maximum length in bytes of a write that may use [`UNSENT_RESERVE`].
pub const SHORT_WRITE: usize = 1024;
/// Bytes by which the windows of a connection's streams may grow together. With 256 KiB more, a circuit to somebody
/// 100 ms away carries 100 Mbit/s.
pub const WINDOW_GROWTH: usize = 1 << 20;
/// Maximum length in bytes of a multiplexer frame: the most that implementations send.
pub const MAX_FRAME: usize = 64 * 1024;
/// Cost in bytes of keeping an unread frame, besides its content and its list entries. Without these two, a window
/// of single bytes would cost sixteen megabytes.
pub const FRAME_COST: usize = 56;
/// Cost in bytes of a frame's list entries. The lists do not shrink, so a stream stays charged for its greatest
/// number of waiting frames until it is gone. Yamux's list has 32 bytes per frame and ours 4, and both grow to
/// twice what they hold. Honest streams have some dozen frames waiting.
pub const FRAME_PLACE: usize = 72;
/// Time for the remote to take what is left when a connection is closed.
pub const CLOSE_TIME: Duration = Duration::from_secs(10);
/// Maximum number of streams of a connection whose protocol is not negotiated yet.
pub const NEGOTIATING_STREAMS: usize = 8;

/// Maximum number of connections in total: the devices of ten thousand personas, some twice, and other homes. One
/// slot of 64 is kept free by closing connections without a session.
pub const MAX_CONNECTIONS: usize = 24_000;
/// Maximum number of connections of one peer: one, a second one that replaces it, and what hole punching needs.
pub const MAX_CONNECTIONS_OF_PEER: usize = 4;
/// Maximum number of connections from one address (an IPv6 /64 network counts as one): a school behind one router.
pub const MAX_CONNECTIONS_OF_ADDRESS: usize = 256;
/// Maximum number of those without a session after [`SESSION_GRACE`]: other homes, and people who look at
/// profiles.
pub const MAX_WITHOUT_SESSION_OF_ADDRESS: usize = 64;
/// The same from one network, which is an IPv4 address or an IPv6 /48: one customer may have 65,536 /64 networks,
/// and a carrier as many customers.
pub const MAX_WITHOUT_SESSION_OF_NETWORK: usize = 256;
/// Time to log in before a connection counts as one without a session.
pub const SESSION_GRACE: Duration = Duration::from_secs(15);
/// Maximum number of connections whose handshake is incomplete. Beyond, the oldest of the most crowded network is
/// closed: fewer than 5,000 newcomers a second cannot push out a peer that completes it within a tenth of
/// [`HANDSHAKE_TIME`].
pub const MAX_PENDING: usize = 2_048;
/// Maximum number of those from one address.
pub const MAX_PENDING_OF_ADDRESS: usize = 64;
/// Maximum number of those from one network.
pub const MAX_PENDING_OF_NETWORK: usize = 256;
/// Maximum number of connections that we are establishing at a time: to other homes, and to probe whether a device
/// is reachable.
pub const MAX_PENDING_OUTGOING: u32 = 64;
/// Rate of dials to addresses heard from others, in total: a query of the directory asks some twenty homes.
pub const DIALS: Rate = Rate { burst: 256, per_second: 32 };
/// Rate of them to one target. Homes at a target with many just take longer; a target that is no home is not
/// flooded.
pub const DIALS_OF_TARGET: Rate = Rate { burst: 16, per_second: 1 };
/// Rate of new connections from one address. Each costs the home a handshake.
pub const CONNECTIONS_RATE_OF_ADDRESS: Rate = Rate { burst: 512, per_second: 16 };
/// Rate of requests of one peer: a blob of eight megabytes in chunks at once, then fifty a second.
pub const REQUESTS_OF_PEER: Rate = Rate { burst: 600, per_second: 50 };
/// Rate of requests from one address.
pub const REQUESTS_OF_ADDRESS: Rate = Rate { burst: 4_000, per_second: 500 };
/// Rate of directory messages from one peer, including its answers to us. With only a few homes, one that publishes
/// and one that is published to have 16 a second each.
pub const LOOKUPS_OF_PEER: Rate = Rate { burst: 1_024, per_second: 64 };
/// The same from one address.
pub const LOOKUPS_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 256 };
/// Rate of identify messages of one peer, sent or asked for: at the start, and when its addresses change.
pub const INTRODUCTIONS_OF_PEER: Rate = Rate { burst: 64, per_second: 1 };
/// The same from one address: two or three per connection, and one per connection when our addresses change.
pub const INTRODUCTIONS_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 64 };
/// Rate of a peer's actions at the relay: each reservation and each circuit counts about two, even if refused.
pub const RELAYING_OF_PEER: Rate = Rate { burst: 256, per_second: 2 };
/// The same from one address: a school whose devices reconnect at once.
pub const RELAYING_OF_ADDRESS: Rate = Rate { burst: 4_096, per_second: 64 };
/// The same from one address, for peers that are not logged in there or call nobody: they are refused, but only
/// after the relay has searched all connections. A device asks once, and logs in.
pub const RELAYING_OF_STRANGERS: Rate = Rate { burst: 256, per_second: 4 };
/// Rate of log-ins, announcements and log-outs of one peer: some dozen commands of a script at once. Each of them
/// reads all relations of a persona, which takes 0.65 ms, and 10 ms from disk.
pub const SESSIONS_OF_PEER: Rate = Rate { burst: 128, per_second: 2 };
/// The same from one address: all devices of a school when the home comes back, which take a sixth of the home's
/// time.
pub const SESSIONS_OF_ADDRESS: Rate = Rate { burst: 512, per_second: 16 };
/// A presence request counts as one of these per this many personas, rounded up. Each persona is a key lookup,
/// which takes 3 µs if the key is absent. 2,000 relations take 32 tokens.
pub const PRESENCES_OF_SESSION: usize = 64;
/// Maximum number of requests refused for their rate before the peer is disconnected for ignoring that.
pub const MAX_REFUSED: u32 = 1_000;
/// Maximum number of requests of one peer in progress.
pub const MAX_REQUESTS_OF_PEER: usize = 32;
/// Maximum number of requests in progress in total.
pub const MAX_REQUESTS_IN_ALL: usize = 8_192;
/// Maximum total bytes of answers that peers have not taken yet. Beyond, the peer with the most is disconnected.
pub const MAX_ANSWERS: usize = 64 << 20;
/// Maximum number of events sent to one device that it has not confirmed; others wait here.
pub const EVENTS_UNDER_WAY: usize = 8;
/// Maximum number of events waiting for one device: a presence for each relation, [`MAX_REQUESTS`] relation
/// requests, and some room. Beyond, the device is disconnected; it asks for what it missed when it comes back.
pub const MAX_EVENTS: usize = 4_096;
/// Maximum total bytes of those events.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// A connection without a session or anything in progress is closed after this.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// Time to complete the handshake: three round trips, also through Tor.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(4);
/// Interval between pings on a connection. Ten thousand connections make 170 pings a second.
pub const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Time for the answer to a ping.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest duration of a circuit.
pub const CIRCUIT_TIME: Duration = Duration::from_secs(30 * 60);
/// Maximum bytes through a circuit, both directions together: a call with pictures, not a film.
pub const CIRCUIT_BYTES: u64 = 64 << 20;
/// Maximum number of circuits at once. Two colluding ends can make the relay hold [`MAX_UNREAD_OF_CARRIER`] for
/// each of them.
pub const MAX_CIRCUITS: usize = 256;
/// Maximum number of circuits of one device.
pub const MAX_CIRCUITS_OF_PEER: usize = 4;
/// Maximum number of circuits that one persona has opened, with all its devices.
pub const MAX_CIRCUITS_OF_PERSONA: usize = 8;
/// Maximum number of circuits opened from one address: eight such addresses are needed to take all.
pub const MAX_CIRCUITS_OF_ADDRESS: usize = 32;
/// Duration of a reservation: a year, longer than any connection. It ends with the session instead: the relay
/// panics if a reservation expires while a device is slow to take the answer to its renewal.
pub const RESERVATION_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Maximum length in bytes of a directory record: two halves of a proof, and a contact with eight long addresses.
pub const MAX_RECORD: usize = 4 * 1024;
/// Maximum number of records of other homes' personas that a home keeps: at most 128 MiB, usually a quarter of
/// that.
pub const MAX_FOREIGN_RECORDS: usize = 32_768;
/// Time that a record is kept; its home publishes it again before.
pub const RECORD_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval between two rounds in which a home publishes all its records.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// Records that a home publishes per second: ten thousand in twenty minutes.
pub const PUBLISH_EACH_SECOND: usize = 8;
/// Maximum number of directory queries in progress.
pub const MAX_PUBLICATIONS: usize = 64;
/// Rate of records from one home: each costs three signature verifications, and three for the one it replaces.
pub const RECORDS_OF_PEER: Rate = Rate { burst: 512, per_second: 16 };
/// Rate of records from the homes at one address.
pub const RECORDS_OF_ADDRESS: Rate = Rate { burst: 1_024, per_second: 32 };

/// A rate limit: a bucket of `burst` tokens, refilled by `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub burst: u32,
    /// Tokens added per second.
    pub per_second: u32,
}
