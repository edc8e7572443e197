// The nonce search for OpenCL devices, built for one shape:
//   VECTOR    nonces side by side (1, 2, 4, 8 or 16)
//   VERSIONS  midstates that share an expanded message (1: the message is expanded as the rounds go)
//   GROUP     work items in a group
//   BATCHES   vectors that a work item takes one after another; with more than one, the first hash of each runs beside
//             the second hash of the one before, so that there are two streams that do not wait for each other
//   MULTIPLY  what is done by multiplications: nothing (0), additions (1), a message word's shifts as well (2), and one
//             rotation of each (3)
//   SHA       defined where sha.cl, which comes after this, takes the place of the kernel here
// and for one device:
//   BITALIGN  defined where it has cl_amd_media_ops. (A compiler may define that name for a device that has not.)
// A work item tries its nonces in every version and writes down those whose last word has no bit of `zeros`.

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if VECTOR == 1
typedef uint word;
#define STEPS 0u
#else
typedef JOIN(uint, VECTOR) word;
#if VECTOR == 2
#define STEPS (word)(0, 1)
#elif VECTOR == 4
#define STEPS (word)(0, 1, 2, 3)
#elif VECTOR == 8
#define STEPS (word)(0, 1, 2, 3, 4, 5, 6, 7)
#else
#define STEPS (word)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#endif
#endif

#ifdef BITALIGN
#pragma OPENCL EXTENSION cl_amd_media_ops : enable
#define ROTR(x, n) amd_bitalign((x), (x), (word)(n))
#else
#define ROTR(x, n) rotate((x), (word)(32 - (n)))
#endif

// Each is one instruction where the device has a three-input one.
#if defined(__has_builtin)
#if __has_builtin(__builtin_ia32_pternlogd512_mask) && defined(__AVX512F__) && VECTOR == 16
#define WIDE_CPU
#endif
#endif
#ifdef WIDE_CPU
// A CPU has one for any function of three bits, which its compiler does not find by itself.
#define THREE(a, b, c, table) \
    as_uint16(__builtin_ia32_pternlogd512_mask(as_int16(a), as_int16(b), as_int16(c), table, (ushort)-1))
#define CH(e, f, g) THREE(e, f, g, 0xca)
#define MAJ(a, b, c) THREE(a, b, c, 0xe8)
#define XOR3(a, b, c) THREE(a, b, c, 0x96)
// Nothing is moved past it: compilers would keep the two streams apart, and each would wait for itself.
#define TOGETHER(a, b, c, d) __asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d))
#else
// Written so that a device without such an instruction has the fewest others: a ^ b is the next round's b ^ c. Compilers
// for one that has one find it.
#define CH(e, f, g) ((g) ^ ((e) & ((f) ^ (g))))
#define MAJ(a, b, c) ((b) ^ (((a) ^ (b)) & ((b) ^ (c))))
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define TOGETHER(a, b, c, d)
#endif
#define BIG0(x) XOR3(ROTR(x, 2), ROTR(x, 13), ROTR(x, 22))
#define BIG1(x) XOR3(ROTR(x, 6), ROTR(x, 11), ROTR(x, 25))
#define SMALL0(x) XOR3(ROTR(x, 7), ROTR18(x), SHIFT3(x))
#define SMALL1(x) XOR3(ROTR(x, 17), ROTR19(x), SHIFT10(x))

// Some devices have units that multiply and add, and do nothing else of what is wanted here. The factors are told at run
// time, since a compiler that knew them would make additions and shifts of it again.
struct factors {
    uint one, two13, two14, two22, two29;
};
#if MULTIPLY >= 1
#define ADD(a, b) ((a) * by.one + (b))
#else
#define ADD(a, b) ((a) + (b))
#endif
#if MULTIPLY >= 2
#define SHIFT3(x) mul_hi((x), (word)by.two29)
#define SHIFT10(x) mul_hi((x), (word)by.two22)
#else
#define SHIFT3(x) ((x) >> 3)
#define SHIFT10(x) ((x) >> 10)
#endif
#if MULTIPLY >= 3
#define ROTR18(x) (mul_hi((x), (word)by.two14) + ((x) << 14))
#define ROTR19(x) (mul_hi((x), (word)by.two13) + ((x) << 13))
#else
#define ROTR18(x) ROTR(x, 18)
#define ROTR19(x) ROTR(x, 19)
#endif

constant uint K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define END_OF_MESSAGE 0x80000000u
#define HEADER_BITS 640u
#define HASH_BITS 256u

// The words keep their places and their names move.
#define ROUND(a, b, c, d, e, f, g, h, sum)                              \
    {                                                                   \
        const word t1 = ADD(ADD(ADD(h, sum), CH(e, f, g)), BIG1(e));    \
        d = ADD(d, t1);                                                 \
        h = ADD(ADD(t1, MAJ(a, b, c)), BIG0(a));                        \
    }
#define FOUR(a, b, c, d, e, f, g, h, i, SUM)    \
    ROUND(a, b, c, d, e, f, g, h, SUM(i))       \
    ROUND(h, a, b, c, d, e, f, g, SUM(i + 1))   \
    ROUND(g, h, a, b, c, d, e, f, SUM(i + 2))   \
    ROUND(f, g, h, a, b, c, d, e, SUM(i + 3))
#define EVEN(i, SUM) FOUR(a, b, c, d, e, f, g, h, i, SUM)
#define ODD(i, SUM) FOUR(e, f, g, h, a, b, c, d, i, SUM)

// What a round adds: of the header's padding, of a block's own words, of words made on the way, of expanded ones.
#define HEADER_SUM(i) (word)(K[i] + ((i) == 4 ? END_OF_MESSAGE : (i) == 15 ? HEADER_BITS : 0u))
#define BLOCK_SUM(i) (w[(i) & 15] + K[i])
#define NEXT_OF(w, i) \
    (w[(i) & 15] = ADD(ADD(ADD(w[(i) & 15], w[((i) + 9) & 15]), SMALL0(w[((i) + 1) & 15])), SMALL1(w[((i) + 14) & 15])))
#define NEXT(i) NEXT_OF(w, i)
#define NEXT_SUM(i) (NEXT(i) + K[i])
#define EXPANDED_SUM(i) expanded[(i) - 16]
#define EXPAND4(i)                        \
    expanded[(i) - 16] = NEXT_SUM(i);     \
    expanded[(i) - 15] = NEXT_SUM(i + 1); \
    expanded[(i) - 14] = NEXT_SUM(i + 2); \
    expanded[(i) - 13] = NEXT_SUM(i + 3);

// The header holds a nonce little-endian, SHA-256 reads its words big-endian.
static inline word nonce_words(uint nonce) {
    const word nonces = (word)nonce + STEPS;
    return (rotate(nonces, (word)8) & 0x00ff00ffu) | (rotate(nonces, (word)24) & 0xff00ff00u);
}

// Words 0 to 15 of the header's second block moved on by sixteen where that takes a nonce or nothing.
#define HEADER_BLOCK(n)                                                                        \
    {(word)header[0], (word)header[1], SMALL0(n) + header[2], n + header[3],                   \
     (word)END_OF_MESSAGE, (word)0, (word)0, (word)0, (word)0, (word)0, (word)0, (word)0,      \
     (word)0, (word)0, (word)0, (word)HEADER_BITS}

// Writes down the nonces from `nonce` on whose word is clear of zeros.
static inline void write_down(word stands, uint nonce, uint version, uint room, volatile global uint *found) {
#if VECTOR == 1
    const uint words[1] = {stands};
#else
    // any() looks at top bits: set where a lane is clear of the zeros.
    const JOIN(int, VECTOR) clear = stands == (word)0;
    if (!any(clear)) {
        return;
    }
    uint words[VECTOR];
    JOIN(vstore, VECTOR)(stands, 0, words);
#endif
    for (uint lane = 0; lane < VECTOR; lane++) {
        // The count must not begin again with 0: with more than there is room for, another way is gone.
        if (words[lane] == 0 && atomic_or(found, 0u) <= room) {
            const uint place = atomic_inc(found);
            if (place < room) {
                found[1 + 2 * place] = nonce + lane;
                found[2 + 2 * place] = version;
            }
        }
    }
}

// header: words 16 and 17 of the second block, and what words 18 and 19 are but for the nonce.
// midstates: for each version the state after round 3 for a nonce of 0, then the midstate.
// one, two13 and so on: 1 and these powers of two.
// found: how many, then nonce and version of each, at most `room` of them.
#define SCAN                                                                                                \
    kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))                                               \
    void scan(constant uint *header, constant uint *midstates, uint zeros, uint first, uint first_version,  \
              uint room, uint one, uint two13, uint two14, uint two22, uint two29, volatile global uint *found)

#ifndef SHA
#if BATCHES == 1
// The last word of the second hash of a first one.
static inline word last_word(struct factors by, word w0, word w1, word w2, word w3, word w4, word w5, word w6,
                             word w7) {
    word w[16] = {w0, w1, w2, w3, w4, w5, w6, w7, (word)END_OF_MESSAGE, (word)0, (word)0,
                  (word)0, (word)0, (word)0, (word)0, (word)HASH_BITS};
    word a = (word)0x6a09e667u, b = (word)0xbb67ae85u, c = (word)0x3c6ef372u, d = (word)0xa54ff53au;
    word e = (word)0x510e527fu, f = (word)0x9b05688cu, g = (word)0x1f83d9abu, h = (word)0x5be0cd19u;
    EVEN(0, BLOCK_SUM) ODD(4, BLOCK_SUM) EVEN(8, BLOCK_SUM) ODD(12, BLOCK_SUM)
    EVEN(16, NEXT_SUM) ODD(20, NEXT_SUM) EVEN(24, NEXT_SUM) ODD(28, NEXT_SUM)
    EVEN(32, NEXT_SUM) ODD(36, NEXT_SUM) EVEN(40, NEXT_SUM) ODD(44, NEXT_SUM)
    EVEN(48, NEXT_SUM) ODD(52, NEXT_SUM) EVEN(56, NEXT_SUM)
    // h after round 63 is e after round 60, of which no more is needed; the names stand four places on.
    return h + d + NEXT_SUM(60) + CH(a, b, c) + BIG1(a) + (word)0x5be0cd19u;
}

#endif

SCAN
#if BATCHES == 1
{
    const struct factors by = {one, two13, two14, two22, two29};
    const uint nonce = first + (uint)get_global_id(0) * VECTOR;
    const word n = nonce_words(nonce);
    word w[16] = HEADER_BLOCK(n);
#if VERSIONS > 1
    word expanded[48];
    expanded[0] = BLOCK_SUM(16);
    expanded[1] = BLOCK_SUM(17);
    expanded[2] = BLOCK_SUM(18);
    expanded[3] = BLOCK_SUM(19);
    EXPAND4(20) EXPAND4(24) EXPAND4(28) EXPAND4(32) EXPAND4(36) EXPAND4(40)
    EXPAND4(44) EXPAND4(48) EXPAND4(52) EXPAND4(56) EXPAND4(60)
    for (uint version = 0; version < VERSIONS; version++)
#else
    const uint version = 0;
#endif
    {
        constant uint *s = midstates + 16 * (first_version + version);
        word a = n + s[0], b = (word)s[1], c = (word)s[2], d = (word)s[3];
        word e = n + s[4], f = (word)s[5], g = (word)s[6], h = (word)s[7];
        EVEN(4, HEADER_SUM) ODD(8, HEADER_SUM) EVEN(12, HEADER_SUM)
#if VERSIONS > 1
#define SUM EXPANDED_SUM
        ODD(16, SUM)
#else
#define SUM NEXT_SUM
        ODD(16, BLOCK_SUM)
#endif
        EVEN(20, SUM) ODD(24, SUM) EVEN(28, SUM) ODD(32, SUM) EVEN(36, SUM) ODD(40, SUM)
        EVEN(44, SUM) ODD(48, SUM) EVEN(52, SUM) ODD(56, SUM) EVEN(60, SUM)
        // An odd number of fours: a stands in e's place.
        const word last = last_word(by, e + s[8], f + s[9], g + s[10], h + s[11],
                                    a + s[12], b + s[13], c + s[14], d + s[15]);
        write_down(last & (word)zeros, nonce, first_version + version, room, found);
    }
}
#else
#define SECOND_SUM(i) ((i) < 16 ? x[(i) & 15] + K[i] : NEXT_OF(x, i) + K[i])
// Round i of the first hash, and of the second the round three before: both end with their round 60 or 63.
#define BOTH(a, b, c, d, e, f, g, h, p, q, r, s, t, u, v, y, i, SUM) \
    ROUND(a, b, c, d, e, f, g, h, SUM(i))                            \
    ROUND(p, q, r, s, t, u, v, y, SECOND_SUM(i - 3))                 \
    TOGETHER(d, h, s, y);
#define BOTH4(a, b, c, d, e, f, g, h, p, q, r, s, t, u, v, y, i, SUM)    \
    BOTH(a, b, c, d, e, f, g, h, p, q, r, s, t, u, v, y, i, SUM)         \
    BOTH(h, a, b, c, d, e, f, g, y, p, q, r, s, t, u, v, i + 1, SUM)     \
    BOTH(g, h, a, b, c, d, e, f, v, y, p, q, r, s, t, u, i + 2, SUM)     \
    BOTH(f, g, h, a, b, c, d, e, u, v, y, p, q, r, s, t, i + 3, SUM)
#define BOTH_EVEN(i, SUM) BOTH4(a, b, c, d, e, f, g, h, p, q, r, s, t, u, v, y, i, SUM)
#define BOTH_ODD(i, SUM) BOTH4(e, f, g, h, a, b, c, d, t, u, v, y, p, q, r, s, i, SUM)
{
    const struct factors by = {one, two13, two14, two22, two29};
    const uint start = first + (uint)get_global_id(0) * VECTOR * BATCHES;
    constant uint *m = midstates + 16 * first_version;
    word hash[8] = {0};
    for (uint batch = 0; batch <= BATCHES; batch++) {
        const uint nonce = start + batch * VECTOR;
        const word n = nonce_words(nonce);
        word w[16] = HEADER_BLOCK(n);
        word a = n + m[0], b = (word)m[1], c = (word)m[2], d = (word)m[3];
        word e = n + m[4], f = (word)m[5], g = (word)m[6], h = (word)m[7];
        word x[16] = {hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
                      (word)END_OF_MESSAGE, (word)0, (word)0, (word)0, (word)0, (word)0, (word)0, (word)HASH_BITS};
        // The second hash's names stand one place on, as they do after its round 0.
        word q = (word)0x6a09e667u, r = (word)0xbb67ae85u, s = (word)0x3c6ef372u, t = (word)0xa54ff53au;
        word u = (word)0x510e527fu, v = (word)0x9b05688cu, y = (word)0x1f83d9abu, p = (word)0x5be0cd19u;
        ROUND(q, r, s, t, u, v, y, p, SECOND_SUM(0))
        BOTH_EVEN(4, HEADER_SUM) BOTH_ODD(8, HEADER_SUM) BOTH_EVEN(12, HEADER_SUM) BOTH_ODD(16, BLOCK_SUM)
        BOTH_EVEN(20, NEXT_SUM) BOTH_ODD(24, NEXT_SUM) BOTH_EVEN(28, NEXT_SUM) BOTH_ODD(32, NEXT_SUM)
        BOTH_EVEN(36, NEXT_SUM) BOTH_ODD(40, NEXT_SUM) BOTH_EVEN(44, NEXT_SUM) BOTH_ODD(48, NEXT_SUM)
        BOTH_EVEN(52, NEXT_SUM) BOTH_ODD(56, NEXT_SUM) BOTH_EVEN(60, NEXT_SUM)
        // h after round 63 is e after round 60.
        const word last = p + (word)0x5be0cd19u;
        // An odd number of fours: a stands in e's place.
        hash[0] = e + m[8], hash[1] = f + m[9], hash[2] = g + m[10], hash[3] = h + m[11];
        hash[4] = a + m[12], hash[5] = b + m[13], hash[6] = c + m[14], hash[7] = d + m[15];
        if (batch > 0) {
            write_down(last & (word)zeros, nonce - VECTOR, first_version, room, found);
        }
    }
}
#endif
#endif
