// The search where the device is a CPU with the SHA instructions. Stands behind scan.cl, whose words, sums and finds it
// uses, and takes its kernel's place where SHA is defined; VECTOR is 16 then.
//
// sha256rnds2 does two rounds of one nonce, takes four cycles for that and starts in each, or in every other one. So four
// nonces take turns, a block of the sixteen. Messages are made for all sixteen beside the rounds: of the second hash beside
// the first hash of the next item, and of the next batch's first hash beside the second hash. An item is a batch in one
// version.
#ifdef SHA

// Of each four lanes of two words the lower two side by side, and the upper two; and the same of pairs of lanes.
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW_PAIRS(a, b) __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_PAIRS(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)

// What rounds i and i + 1 add, i even, nonce by nonce, so that each nonce's pair is in one place.
#define PUT(sums, i, sum, next_sum)            \
    {                                          \
        const word even = sum, odd = next_sum; \
        sums[i] = LOW(even, odd);              \
        sums[i + 1] = HIGH(even, odd);         \
    }
#define PUT_HEADER(i) PUT(first_sums, i, HEADER_SUM(i), HEADER_SUM(i + 1))
// A place of 64 is none.
#define PUT_FIRST(i)                                               \
    if (i < 20) PUT(first_sums, i, BLOCK_SUM(i), BLOCK_SUM(i + 1)) \
    else if (i < 64) PUT(first_sums, i, NEXT_SUM(i), NEXT_SUM(i + 1))
#define PADDING_SUM(i) (word)(K[i] + ((i) == 8 ? END_OF_MESSAGE : (i) == 15 ? HASH_BITS : 0u))
#define PUT_PADDING(i) PUT(second_sums, i, PADDING_SUM(i), PADDING_SUM(i + 1))
#define HASH_SUM(i) ((i) < 16 ? x[(i) & 15] + K[i] : NEXT_OF(x, i) + K[i])
// Round 61 is done, but nothing of it is wanted.
#define PUT_SECOND(i) if (i < 62) PUT(second_sums, i, HASH_SUM(i), i < 60 ? HASH_SUM(i + 1) : (word)0)
#define NOTHING(i)

// Two rounds: y, which was c, d, g and h, becomes a, b, e and f; x, which was those, is now the others.
#define TWO_ROUNDS(x, y, at)                                             \
    {                                                                    \
        const int4 sum = (int4)(as_int2(vload2(0, at)), 0, 0);           \
        __asm__("sha256rnds2 %2, %1, %0" : "+x"(y) : "x"(x), "Yz"(sum)); \
    }
#define BLOCK_ROUNDS(x, y, at)                                \
    TWO_ROUNDS(x##0, y##0, at) TWO_ROUNDS(x##1, y##1, at + 2) \
    TWO_ROUNDS(x##2, y##2, at + 16) TWO_ROUNDS(x##3, y##3, at + 18)
#define FOUR_ROUNDS(i) BLOCK_ROUNDS(abef, cdgh, sums + 16 * (i)) BLOCK_ROUNDS(cdgh, abef, sums + 16 * (i) + 32)
// Eight rounds, then two words of a message. The empty instruction keeps compilers from taking either elsewhere, and from
// keeping the sums in registers, from which it costs more to take a pair than from memory.
#define EIGHT_ROUNDS(i, MAKE)           \
    FOUR_ROUNDS(i) FOUR_ROUNDS((i) + 4) \
    MAKE                                \
    __asm__ volatile("" : : "r"(first_sums), "r"(second_sums) : "memory");
#define SIXTY_ROUNDS(i, PUT_, p0, p1, p2, p3, p4, p5, p6)                                        \
    EIGHT_ROUNDS(i, PUT_(p0)) EIGHT_ROUNDS(i + 8, PUT_(p1)) EIGHT_ROUNDS(i + 16, PUT_(p2))       \
    EIGHT_ROUNDS(i + 24, PUT_(p3)) EIGHT_ROUNDS(i + 32, PUT_(p4)) EIGHT_ROUNDS(i + 40, PUT_(p5)) \
    EIGHT_ROUNDS(i + 48, PUT_(p6)) FOUR_ROUNDS(i + 56)

// The first hash of a block's nonces, from round 4 on. Its words go to `hash`, of which abef has the first half.
#define BEGUN(k)                                                  \
    const uint start##k = ((const uint *)&starts)[4 * block + k]; \
    int4 abef##k = begin_abef + (int4)(0, start##k, 0, start##k), cdgh##k = begin_cdgh;
#define ENDED(k)                                                             \
    vstore4(as_uint4(abef##k + midstate_abef), 4 * k + block, (uint *)hash); \
    vstore4(as_uint4(cdgh##k + midstate_cdgh), 16 + 4 * k + block, (uint *)hash);
#define FIRST_HASH(block_, ...)                                  \
    {                                                            \
        const uint block = block_;                               \
        const uint *sums = (const uint *)first_sums + 4 * block; \
        BEGUN(0) BEGUN(1) BEGUN(2) BEGUN(3)                      \
        SIXTY_ROUNDS(4, __VA_ARGS__)                             \
        ENDED(0) ENDED(1) ENDED(2) ENDED(3)                      \
    }
// The second hash as far as round 61, where f is e of round 60.
#define SECOND_HASH(block_, ...)                                                                       \
    {                                                                                                  \
        const uint block = block_;                                                                     \
        const uint *sums = (const uint *)second_sums + 4 * block;                                      \
        int4 abef0 = (int4)(0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667);                           \
        int4 cdgh0 = (int4)(0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372);                           \
        int4 abef1 = abef0, abef2 = abef0, abef3 = abef0, cdgh1 = cdgh0, cdgh2 = cdgh0, cdgh3 = cdgh0; \
        SIXTY_ROUNDS(0, __VA_ARGS__)                                                                   \
        BLOCK_ROUNDS(abef, cdgh, sums + 16 * 60)                                                       \
        vstore4((uint4)(cdgh0.x, cdgh1.x, cdgh2.x, cdgh3.x), block, (uint *)&last);                    \
    }

SCAN {
    const struct factors by = {one, two13, two14, two22, two29};
    word first_sums[64], second_sums[64], hash[8] = {0}, last, starts;
    PUT_HEADER(4) PUT_HEADER(6) PUT_HEADER(8) PUT_HEADER(10) PUT_HEADER(12) PUT_HEADER(14)
    PUT_PADDING(8) PUT_PADDING(10) PUT_PADDING(12) PUT_PADDING(14)
    uint nonce = first + (uint)get_global_id(0) * 16 * BATCHES, nonce_before = 0, version = 0, version_before = 0;
    for (uint item = 0; item <= BATCHES * VERSIONS; item++) {
        if (version == 0) {
            const word n = nonce_words(nonce);
            starts = n;
            if (VERSIONS > 1 || item == 0) {
                word w[16] = HEADER_BLOCK(n);
                PUT_FIRST(16) PUT_FIRST(18) PUT_FIRST(20) PUT_FIRST(22) PUT_FIRST(24) PUT_FIRST(26)
                PUT_FIRST(28) PUT_FIRST(30) PUT_FIRST(32) PUT_FIRST(34) PUT_FIRST(36) PUT_FIRST(38)
                PUT_FIRST(40) PUT_FIRST(42) PUT_FIRST(44) PUT_FIRST(46) PUT_FIRST(48) PUT_FIRST(50)
                PUT_FIRST(52) PUT_FIRST(54) PUT_FIRST(56) PUT_FIRST(58) PUT_FIRST(60) PUT_FIRST(62)
            }
        }
        constant uint *m = midstates + 16 * (first_version + version);
        const int4 begin_abef = (int4)(m[5], m[4], m[1], m[0]), begin_cdgh = (int4)(m[7], m[6], m[3], m[2]);
        const int4 midstate_abef = (int4)(m[13], m[12], m[9], m[8]), midstate_cdgh = (int4)(m[15], m[14], m[11], m[10]);
        // From four words of each lane to one word of all lanes.
        word x[16];
#define TRANSPOSED(from, w0, w1, w2, w3)                                           \
        {                                                                          \
            const word in0 = hash[from], in1 = hash[from + 1];                     \
            const word in2 = hash[from + 2], in3 = hash[from + 3];                 \
            const word low01 = LOW(in0, in1), low23 = LOW(in2, in3);               \
            const word high01 = HIGH(in0, in1), high23 = HIGH(in2, in3);           \
            x[w0] = LOW_PAIRS(low01, low23), x[w1] = HIGH_PAIRS(low01, low23);     \
            x[w2] = LOW_PAIRS(high01, high23), x[w3] = HIGH_PAIRS(high01, high23); \
        }
        TRANSPOSED(0, 5, 4, 1, 0)
        TRANSPOSED(4, 7, 6, 3, 2)
        x[8] = (word)END_OF_MESSAGE, x[15] = (word)HASH_BITS;
        x[9] = x[10] = x[11] = x[12] = x[13] = x[14] = (word)0;
        FIRST_HASH(0, PUT_SECOND, 0, 2, 4, 6, 16, 18, 20)
        FIRST_HASH(1, PUT_SECOND, 22, 24, 26, 28, 30, 32, 34)
        FIRST_HASH(2, PUT_SECOND, 36, 38, 40, 42, 44, 46, 48)
        FIRST_HASH(3, PUT_SECOND, 50, 52, 54, 56, 58, 60, 64)
#if VERSIONS == 1
        const word n = nonce_words(nonce + 16);
        word w[16] = HEADER_BLOCK(n);
        SECOND_HASH(0, PUT_FIRST, 16, 18, 20, 22, 24, 26, 28)
        SECOND_HASH(1, PUT_FIRST, 30, 32, 34, 36, 38, 40, 42)
        SECOND_HASH(2, PUT_FIRST, 44, 46, 48, 50, 52, 54, 56)
        SECOND_HASH(3, PUT_FIRST, 58, 60, 62, 64, 64, 64, 64)
#else
        SECOND_HASH(0, NOTHING, , , , , , , )
        SECOND_HASH(1, NOTHING, , , , , , , )
        SECOND_HASH(2, NOTHING, , , , , , , )
        SECOND_HASH(3, NOTHING, , , , , , , )
#endif
        if (item > 0) {
            const word stands = last + (word)0x5be0cd19u;
            write_down(stands & (word)zeros, nonce_before, first_version + version_before, room, found);
        }
        nonce_before = nonce, version_before = version;
        version++;
        if (version == VERSIONS) {
            version = 0;
            nonce += 16;
        }
    }
}
#endif
