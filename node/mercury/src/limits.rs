//! How much of anything, and why so much. All are enforced where the thing comes in.

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
/// How long a home's challenge can be answered, in seconds.
pub const CHALLENGE_TIME: u64 = 60;
/// How far clocks may differ, in seconds.
pub const CLOCK_SKEW: u64 = 120;
/// Time to answer a call, in seconds.
pub const CALL_TIME: u64 = 10;
/// Time to join a call after it was accepted, in seconds.
pub const JOIN_TIME: u64 = 30;
/// Logged-in devices at a home, of hosted personas and of visitors: some for each of the hosted.
pub const MAX_SESSIONS: usize = 20_000;
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
