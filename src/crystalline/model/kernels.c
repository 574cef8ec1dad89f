/* The parts of the network between its matrix products, each in one pass over memory.

   PyTorch runs a norm or a rotation as five to fifteen operations, each reading and writing everything; with matrix
   units the products are so quick that this is most of a training step. Plain C, one thread, no libraries:
   model/operations.py compiles it once per machine and has the same formulas in PyTorch.

   Everything works on vectors of 16 floats, which GCC and Clang compile for any processor; only loading, storing and
   bf16 have a form of their own for AVX-512. This file includes itself twice: first for networks that compute in bf16,
   then in fp32. x, gains, statistics and gradients of gains are always fp32. Sums run in the order of the vector
   lanes: the same bits each time. */

#ifndef T
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define AVX512
#include <immintrin.h>
#endif

typedef uint16_t bf16;
typedef float vector __attribute__((vector_size(64)));
typedef int32_t integers __attribute__((vector_size(64)));
typedef uint32_t bits __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef int64_t longs __attribute__((vector_size(64)));

#define EACH(i, n) for (long i = 0; i < (n); i += 16) /* loads and stores take what is left of the row, at most 16 */

static const integers lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static inline vector all(float x) { return (vector){} + x; }
static inline vector choose(integers where, vector a, vector b) { return (vector)(((integers)a & where) | ((integers)b & ~where)); }
static inline vector max2(vector a, vector b) { return choose(a > b, a, b); }
/* The first n numbers of v, `rest` in the place of the others. */
static inline vector first(vector v, long n, float rest) { return n >= 16 ? v : choose(lanes < (int32_t)n, v, all(rest)); }

#ifdef AVX512
static inline __mmask16 mask(long n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }
static inline vector load_fp32(const float *p, long n) { return (vector)_mm512_maskz_loadu_ps(mask(n), p); }
static inline void store_fp32(float *p, vector v, long n) { _mm512_mask_storeu_ps(p, mask(n), (__m512)v); }
static inline halves load_halves(const bf16 *p, long n) { return (halves)_mm256_maskz_loadu_epi16(mask(n), p); }
static inline void store_halves(bf16 *p, halves h, long n) { _mm256_mask_storeu_epi16(p, mask(n), (__m256i)h); }
static inline float total(vector v) { return _mm512_reduce_add_ps((__m512)v); }
static inline float largest_of(vector v) { return _mm512_reduce_max_ps((__m512)v); }
#else
static inline vector load_fp32(const float *p, long n) { vector v = {}; memcpy(&v, p, n >= 16 ? 64 : 4 * n); return v; }
static inline void store_fp32(float *p, vector v, long n) { memcpy(p, &v, n >= 16 ? 64 : 4 * n); }
static inline halves load_halves(const bf16 *p, long n) { halves h = {}; memcpy(&h, p, n >= 16 ? 32 : 2 * n); return h; }
static inline void store_halves(bf16 *p, halves h, long n) { memcpy(p, &h, n >= 16 ? 32 : 2 * n); }
static inline float total(vector v) {
    float s[16]; memcpy(s, &v, 64);
    for (int half = 8; half; half /= 2) for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}
static inline float largest_of(vector v) {
    float s = v[0];
    for (int i = 1; i < 16; i++) s = v[i] > s ? v[i] : s;
    return s;
}
#endif

static inline vector load_bf16(const bf16 *p, long n) { return (vector)(__builtin_convertvector(load_halves(p, n), bits) << 16); }
/* Rounded to nearest, ties to even, as the processor does; a NaN stays one. */
static inline void store_bf16(bf16 *p, vector v, long n) {
#if defined(AVX512) && defined(__AVX512BF16__)
    store_halves(p, (halves)_mm512_cvtneps_pbh((__m512)v), n);
#else
    bits b = (bits)v, rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
    bits safe = (bits)choose(v == v, (vector)rounded, (vector)((bits){} + 0x7fc0));
    store_halves(p, __builtin_convertvector(safe, halves), n);
#endif
}

/* e^x to about 1 unit in the last place: 2^n times a polynomial (Cody & Waite reduction, degree-6 minimax). */
static inline vector exp_(vector x) {
    /* Not further: products with e^-88 would be denormal, which costs a hundred times as much as any other product. */
    x = choose(x < -80.0f, all(-80.0f), choose(x > 80.0f, all(80.0f), x));
    vector n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vector p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vector)((__builtin_convertvector(n, integers) + 127) << 23);
}

/* The largest of n numbers. */
static inline float largest_fp32(const float *p, long n) {
    vector found = all(-INFINITY);
    EACH(i, n) found = max2(found, first(load_fp32(p + i, n - i), n - i, -INFINITY));
    return largest_of(found);
}

static inline float largest_bf16(const bf16 *p, long n) {
    vector found = all(-INFINITY);
    EACH(i, n) found = max2(found, first(load_bf16(p + i, n - i), n - i, -INFINITY));
    return largest_of(found);
}

static inline vector sigmoid(vector x) { return 1.0f / (1.0f + exp_(-x)); }

/* --- causal attention on bf16 dot products ---------------------------------------------------------------------------

   Scores of a block of queries stay in the first cache, nothing is computed for keys after it, and nothing of size
   time * time is kept: the backward pass makes the probabilities again from the logarithm of their sum (Dao et al.
   2022, arXiv 2205.14135). Products take two neighbours of the summed dimension at once, a `pair`. */
#if defined(AVX512) && defined(__AVX512BF16__)
#include <stdlib.h>
#define BLOCK 32 /* queries */

typedef uint32_t pair;

static inline long up_to(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

/* c (m, n) = a (m, k pairs) b (k pairs, n), or += it. m is a multiple of 8, n of 32; ...s: distance of rows. */
static void product(const pair *a, long as, const pair *b, long bs, float *c, long cs, long m, long n, long k, int add) {
    for (long j = 0; j < n; j += 32)
        for (long i = 0; i < m; i += 8) {
            __m512 x[8], y[8];
            for (int r = 0; r < 8; r++) {
                x[r] = add ? _mm512_loadu_ps(c + (i + r) * cs + j) : _mm512_setzero_ps();
                y[r] = add ? _mm512_loadu_ps(c + (i + r) * cs + j + 16) : _mm512_setzero_ps();
            }
            for (long l = 0; l < k; l++) {
                __m512bh u = (__m512bh)_mm512_loadu_si512(b + l * bs + j), v = (__m512bh)_mm512_loadu_si512(b + l * bs + j + 16);
                for (int r = 0; r < 8; r++) {
                    __m512bh w = (__m512bh)_mm512_set1_epi32(a[(i + r) * as + l]);
                    x[r] = _mm512_dpbf16_ps(x[r], w, u);
                    y[r] = _mm512_dpbf16_ps(y[r], w, v);
                }
            }
            for (int r = 0; r < 8; r++) {
                _mm512_storeu_ps(c + (i + r) * cs + j, x[r]);
                _mm512_storeu_ps(c + (i + r) * cs + j + 16, y[r]);
            }
        }
}

/* The 32-bit numbers of in (rows, columns) as out (columns, rows); both may be read and written up to multiples of 16. */
static void turn(const uint32_t *in, long is, uint32_t *out, long os, long rows, long columns) {
    for (long i = 0; i < rows; i += 16)
        for (long j = 0; j < columns; j += 16) {
            __m512i v[16];
            for (int r = 0; r < 16; r++) v[r] = _mm512_loadu_si512(in + (i + r) * is + j);
            for (int s = 1; s < 16; s *= 2) {
                integers high = (lanes & s) != 0;
                __m512i left = (__m512i)((high & (lanes + 16 - s)) | (~high & lanes)), right = (__m512i)((high & (lanes + 16)) | (~high & (lanes + s)));
                for (int r = 0; r < 16; r++)
                    if (!(r & s)) {
                        __m512i a = v[r], b = v[r + s];
                        v[r] = _mm512_permutex2var_epi32(a, left, b);
                        v[r + s] = _mm512_permutex2var_epi32(a, right, b);
                    }
            }
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(out + (j + r) * os + i, v[r]);
        }
}

static inline bits low_bits(vector v) { return __builtin_convertvector((halves)_mm512_cvtneps_pbh((__m512)v), bits); }

/* Two rows of floats as one row of pairs. */
static inline void store_pairs(pair *p, vector even, vector odd) {
    bits v = low_bits(even) | low_bits(odd) << 16;
    memcpy(p, &v, 64);
}

/* in (rows, width) of bf16 as pairs of rows, (rows / 2, width). Rows and columns beyond are zero up to `padded_rows`, `os`. */
static void pair_rows(const bf16 *in, long is, pair *out, long os, long rows, long padded_rows, long width) {
    for (long r = 0; r < padded_rows; r += 2, out += os)
        EACH(j, os) {
            vector even = r < rows && j < width ? load_bf16(in + r * is + j, width - j) : (vector){};
            vector odd = r + 1 < rows && j < width ? load_bf16(in + (r + 1) * is + j, width - j) : (vector){};
            store_pairs(out + j, even, odd);
        }
}

/* in (rows, width) of bf16, as it is, in rows of `os` numbers with zeros after it. */
static void pad_rows(const bf16 *in, long is, bf16 *out, long os, long rows, long padded_rows, long width) {
    for (long r = 0; r < padded_rows; r++, out += os) {
        memset(out, 0, os * sizeof(bf16));
        if (r < rows) memcpy(out, in + r * is, width * sizeof(bf16));
    }
}

/* Sizes of a head's matrices in memory, and the memory for them. */
typedef struct { long time, width, padded, wide, row; char *memory; } plan_t;

static plan_t plan_of(long time, long width) {
    plan_t s = {time, width, up_to(time, BLOCK), up_to(width, BLOCK), 0, 0};
    s.row = s.padded + 16; /* rows at distances of a power of two would meet in the same few places of the cache */
    return s;
}

static void *take(plan_t *s, long numbers) {
    void *p = s->memory;
    s->memory += up_to(numbers * 4, 64);
    return p;
}

/* q: (batch, heads, time, width); k, v: (batch, kv_heads, time, width); out: (batch, time, heads, width);
   logs: (batch, heads, time), ln of the sum of e^score. Returns 0 when there is no memory. */
int attention_bf16(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *logs, long batch, long heads, long kv_heads, long time, long width, float scale) {
    plan_t s = plan_of(time, width);
    long half = s.wide / 2;
    char *memory = s.memory = aligned_alloc(64, up_to(4 * (s.padded * half + half * s.row + s.padded / 2 * s.wide + BLOCK * (half + 2 * s.row + s.wide)) + 1024, 64));
    if (!memory) return 0;
    pair *rows = take(&s, s.padded * half), *keys = take(&s, half * s.row), *values = take(&s, s.padded / 2 * s.wide);
    pair *queries = take(&s, BLOCK * half), *shares = take(&s, BLOCK * s.row);
    float *scores = take(&s, BLOCK * s.row), *result = take(&s, BLOCK * s.wide);
    for (long n = 0; n < batch * heads; n++) {
        long b = n / heads, h = n % heads, at = (b * kv_heads + h / (heads / kv_heads)) * time * width;
        if (h % (heads / kv_heads) == 0) {
            pad_rows(k + at, width, (bf16 *)rows, s.wide, time, s.padded, width);
            turn(rows, half, keys, s.row, s.padded, half);
            pair_rows(v + at, width, values, s.wide, time, s.padded, width);
        }
        for (long begin = 0; begin < time; begin += BLOCK) {
            long count = time - begin < BLOCK ? time - begin : BLOCK, end = begin + BLOCK;
            pad_rows(q + (n * time + begin) * width, width, (bf16 *)queries, s.wide, count, BLOCK, width);
            product(queries, half, keys, s.row, scores, s.row, BLOCK, end, half, 0);
            for (long r = 0; r < count; r++) {
                long seen = begin + r + 1;
                float *row = scores + r * s.row, top = largest_fp32(row, seen);
                bf16 *share = (bf16 *)(shares + r * (s.row / 2));
                vector sum = {};
                EACH(i, seen) {
                    vector e = first(exp_((load_fp32(row + i, 16) - top) * scale), seen - i, 0.0f);
                    store_fp32(row + i, e, 16);
                    sum += e;
                }
                float whole = total(sum);
                logs[n * time + begin + r] = top * scale + logf(whole);
                EACH(i, end) store_bf16(share + i, i < seen ? load_fp32(row + i, 16) * (1.0f / whole) : (vector){}, 16);
            }
            product(shares, s.row / 2, values, s.wide, result, s.wide, BLOCK, s.wide, end / 2, 0);
            for (long r = 0; r < count; r++)
                EACH(i, width) store_bf16(out + ((b * time + begin + r) * heads + h) * width + i, load_fp32(result + r * s.wide + i, 16), width - i);
        }
    }
    free(memory);
    return 1;
}

/* dout: as out. dq, dk, dv: as q, k, v. Returns 0 when there is no memory. */
int attention_backward_bf16(const bf16 *dout, const bf16 *q, const bf16 *k, const bf16 *v, const float *logs, bf16 *dq, bf16 *dk, bf16 *dv, long batch, long heads,
                       long kv_heads, long time, long width, float scale) {
    plan_t s = plan_of(time, width);
    long half = s.wide / 2, group = heads / kv_heads, blocks = BLOCK / 2;
    char *memory = s.memory = aligned_alloc(64, up_to(4 * (s.padded * half + 2 * half * s.row + s.padded / 2 * s.wide + 2 * s.wide * s.row + s.padded * s.wide
                                                         + BLOCK * (2 * half + 6 * s.row + 4 * s.wide)) + 4096, 64));
    if (!memory) return 0;
    pair *rows = take(&s, s.padded * half), *keys = take(&s, half * s.row), *values = take(&s, half * s.row), *key_pairs = take(&s, s.padded / 2 * s.wide);
    float *dkeys = take(&s, s.wide * s.row), *dvalues = take(&s, s.wide * s.row), *turned = take(&s, s.padded * s.wide);
    pair *queries = take(&s, BLOCK * half), *douts = take(&s, BLOCK * half), *two = take(&s, blocks * s.wide);
    pair *query_columns = take(&s, s.wide * blocks), *dout_columns = take(&s, s.wide * blocks);
    pair *shares = take(&s, blocks * s.row), *dscore_pairs = take(&s, blocks * s.row), *dscore_rows = take(&s, BLOCK * (s.row / 2));
    float *scores = take(&s, BLOCK * s.row), *dshares = take(&s, BLOCK * s.row), *result = take(&s, BLOCK * s.wide);
    for (long n = 0; n < batch * heads; n++) {
        long b = n / heads, h = n % heads, at = (b * kv_heads + h / group) * time * width;
        if (h % group == 0) {
            pad_rows(v + at, width, (bf16 *)rows, s.wide, time, s.padded, width);
            turn(rows, half, values, s.row, s.padded, half);
            pad_rows(k + at, width, (bf16 *)rows, s.wide, time, s.padded, width);
            turn(rows, half, keys, s.row, s.padded, half);
            pair_rows(k + at, width, key_pairs, s.wide, time, s.padded, width);
            memset(dkeys, 0, s.wide * s.row * 4);
            memset(dvalues, 0, s.wide * s.row * 4);
        }
        for (long begin = 0; begin < time; begin += BLOCK) {
            long count = time - begin < BLOCK ? time - begin : BLOCK, end = begin + BLOCK;
            const bf16 *query = q + (n * time + begin) * width, *d = dout + ((b * time + begin) * heads + h) * width;
            pad_rows(query, width, (bf16 *)queries, s.wide, count, BLOCK, width);
            pad_rows(d, heads * width, (bf16 *)douts, s.wide, count, BLOCK, width);
            pair_rows(query, width, two, s.wide, count, BLOCK, width);
            turn(two, s.wide, query_columns, blocks, blocks, s.wide);
            pair_rows(d, heads * width, two, s.wide, count, BLOCK, width);
            turn(two, s.wide, dout_columns, blocks, blocks, s.wide);
            product(queries, half, keys, s.row, scores, s.row, BLOCK, end, half, 0);
            product(douts, half, values, s.row, dshares, s.row, BLOCK, end, half, 0);
            for (long r = 0; r < BLOCK; r++) {
                float *row = scores + r * s.row, *drow = dshares + r * s.row, dot;
                long seen = r < count ? begin + r + 1 : 0;
                float sum = r < count ? logs[n * time + begin + r] : 0.0f;
                vector products = {};
                EACH(i, end) {
                    vector p = i < seen ? first(exp_(load_fp32(row + i, 16) * scale - sum), seen - i, 0.0f) : (vector){};
                    store_fp32(row + i, p, 16);
                    products += p * load_fp32(drow + i, 16);
                }
                dot = total(products);
                bf16 *low = (bf16 *)(dscore_rows + r * (s.row / 2));
                EACH(i, end) {
                    vector g = (load_fp32(drow + i, 16) - dot) * load_fp32(row + i, 16) * scale;
                    store_fp32(drow + i, g, 16);
                    store_bf16(low + i, g, 16);
                }
            }
            for (long r = 0; r < blocks; r++)
                EACH(i, end) {
                    long even = 2 * r * s.row + i, odd = even + s.row;
                    store_pairs(shares + r * s.row + i, load_fp32(scores + even, 16), load_fp32(scores + odd, 16));
                    store_pairs(dscore_pairs + r * s.row + i, load_fp32(dshares + even, 16), load_fp32(dshares + odd, 16));
                }
            product(dout_columns, blocks, shares, s.row, dvalues, s.row, s.wide, end, blocks, 1);
            product(query_columns, blocks, dscore_pairs, s.row, dkeys, s.row, s.wide, end, blocks, 1);
            product(dscore_rows, s.row / 2, key_pairs, s.wide, result, s.wide, BLOCK, s.wide, end / 2, 0);
            for (long r = 0; r < count; r++)
                EACH(i, width) store_bf16(dq + (n * time + begin + r) * width + i, load_fp32(result + r * s.wide + i, 16), width - i);
        }
        if (h % group == group - 1) {
            for (int side = 0; side < 2; side++) {
                turn((uint32_t *)(side ? dvalues : dkeys), s.row, (uint32_t *)turned, s.wide, s.wide, s.padded);
                for (long t = 0; t < time; t++)
                    EACH(i, width) store_bf16((side ? dv : dk) + at + t * width + i, load_fp32(turned + t * s.wide + i, 16), width - i);
            }
        }
    }
    free(memory);
    return 1;
}
#endif

/* The sum of `count` sums as fp32, rounded once; returns the sum of its squares. */
double combine_exact(const int64_t *const *sums, long count, float *restrict gradient, long n, float unit) {
    double squares = 0.0;
    for (long start = 0; start < n; start += 512) {
        int64_t whole[512];
        long size = n - start < 512 ? n - start : 512;
        memcpy(whole, sums[0] + start, size * sizeof(int64_t));
        for (long s = 1; s < count; s++)
            #pragma omp simd
            for (long i = 0; i < size; i++) whole[i] += sums[s][start + i];
        #pragma omp simd reduction(+ : squares)
        for (long i = 0; i < size; i++) {
            float g = gradient[start + i] = (float)whole[i] * unit;
            squares += (double)g * g;
        }
    }
    return squares;
}

#define T bf16
#define LOAD(p, n) load_bf16(p, n)
#define STORE(p, v, n) store_bf16(p, v, n)
#define NAME(x) x##_bf16
#include "kernels.c"
#undef T
#undef LOAD
#undef STORE
#undef NAME
#define T float
#define LOAD(p, n) load_fp32(p, n)
#define STORE(p, v, n) store_fp32(p, v, n)
#define NAME(x) x##_fp32
#include "kernels.c"

#else

/* Add n gradient elements to `sum`, as whole multiples of 1/scale (toward zero); returns the sum of their squares. What
   elements add that are not finite or too large does not matter: the squares tell, and their step is dropped. */
double NAME(add_exact)(const T *restrict g, int64_t *restrict sum, long n, float scale) {
    double squares = 0.0;
    for (long start = 0; start < n; start += 4096) {
        long count = n - start < 4096 ? n - start : 4096;
        vector part = {};
        EACH(i, count) {
            long left = count - i;
            vector x = LOAD(g + start + i, left), s = x * scale;
            part += x * x;
            s = choose(s < 9.0e18f, s, all(9.0e18f)); /* also where s is NaN */
            s = max2(s, all(-9.0e18f));
            int64_t *at = sum + start + i;
            float each[16];
            memcpy(each, &s, 64);
            if (left >= 16) for (int j = 0; j < 16; j++) at[j] += (int64_t)each[j];
            else for (int j = 0; j < left; j++) at[j] += (int64_t)each[j];
        }
        squares += total(part);
    }
    return squares;
}

/* The same for the rows of a table of which g has only some, one after the other: g[i] belongs to row places[i]. */
double NAME(add_exact_rows)(const T *restrict g, const int64_t *restrict places, int64_t *restrict sum, long rows, long width, float scale) {
    double squares = 0.0;
    for (long r = 0; r < rows; r++) squares += NAME(add_exact)(g + r * width, sum + places[r] * width, width, scale);
    return squares;
}

/* For each row: x += branch, if there is one, into `sum`; then y = x / rms(x) * gain. rstd keeps 1 / rms. */
void NAME(rms_norm)(const float *restrict x, const T *restrict branch, const float *restrict gain, float *restrict sum, T *restrict y,
                    float *restrict rstd, long rows, long width, float epsilon) {
    for (long r = 0; r < rows; r++, x += width, y += width) {
        vector squares = {};
        const float *in = x;
        if (branch) {
            EACH(i, width) {
                vector v = load_fp32(x + i, width - i) + LOAD(branch + i, width - i);
                store_fp32(sum + i, v, width - i);
                squares += v * v;
            }
            in = sum, sum += width, branch += width;
        } else EACH(i, width) {
            vector v = load_fp32(x + i, width - i);
            squares += v * v;
        }
        float scale = rstd[r] = 1.0f / sqrtf(total(squares) / width + epsilon);
        EACH(i, width) STORE(y + i, load_fp32(in + i, width - i) * scale * load_fp32(gain + i, width - i), width - i);
    }
}

/* dx, the sum over rows of dgain, and dx again as the gradient of the branch, if there is one. x: what was normed.
   dsum: the gradient that x itself has besides, or NULL. */
void NAME(rms_norm_backward)(const T *restrict dy, const float *restrict dsum, const float *restrict x, const float *restrict gain,
                             const float *restrict rstd, float *restrict dx, T *restrict dbranch, float *restrict dgain, long rows, long width) {
    for (long r = 0; r < rows; r++, dy += width, x += width, dx += width) {
        vector products = {};
        EACH(i, width) products += LOAD(dy + i, width - i) * load_fp32(gain + i, width - i) * load_fp32(x + i, width - i);
        float scale = rstd[r], common = total(products) * scale * scale * scale / width;
        EACH(i, width) {
            long n = width - i;
            vector d = LOAD(dy + i, n) * scale, v = load_fp32(x + i, n);
            vector g = d * load_fp32(gain + i, n) - v * common;
            if (dsum) g += load_fp32(dsum + i, n);
            store_fp32(dx + i, g, n);
            if (dbranch) STORE(dbranch + i, g, n);
            store_fp32(dgain + i, load_fp32(dgain + i, n) + d * v, n);
        }
        if (dsum) dsum += width;
        if (dbranch) dbranch += width;
    }
}

/* Take queries, keys and values out of a (batch, time, heads + 2 kv_heads, width) product; norm queries and keys and
   turn them by their positions. Results are (batch, heads, time, width). rstd: of each query and key. */
void NAME(split_heads)(const T *restrict qkv, const float *restrict query_gain, const float *restrict key_gain, const float *restrict cosine,
                       const float *restrict sine, T *restrict q, T *restrict k, T *restrict v, float *restrict rstd, long batch, long time, long heads,
                       long kv_heads, long width, float epsilon) {
    long half = width / 2, every = heads + 2 * kv_heads;
    for (long b = 0; b < batch; b++)
        for (long t = 0; t < time; t++)
            for (long h = 0; h < every; h++, qkv += width) {
                if (h >= heads + kv_heads) {
                    memcpy(v + ((b * kv_heads + h - heads - kv_heads) * time + t) * width, qkv, width * sizeof(T));
                    continue;
                }
                const float *gain = h < heads ? query_gain : key_gain, *c = cosine + t * width, *s = sine + t * width;
                T *out = h < heads ? q + ((b * heads + h) * time + t) * width
                                   : k + ((b * kv_heads + h - heads) * time + t) * width;
                vector squares = {};
                EACH(i, width) {
                    vector x = LOAD(qkv + i, width - i);
                    squares += x * x;
                }
                float scale = *rstd++ = 1.0f / sqrtf(total(squares) / width + epsilon);
                EACH(i, half) {
                    long n = half - i;
                    vector a = LOAD(qkv + i, n) * scale * load_fp32(gain + i, n), z = LOAD(qkv + half + i, n) * scale * load_fp32(gain + half + i, n);
                    vector co = load_fp32(c + i, n), si = load_fp32(s + i, n);
                    STORE(out + i, a * co - z * si, n);
                    STORE(out + half + i, z * co + a * si, n);
                }
            }
}

/* The gradient of the product, and the sums of both gains' gradients. */
void NAME(split_heads_backward)(const T *restrict dq, const T *restrict dk, const T *restrict dv, const T *restrict qkv, const float *restrict query_gain,
                                const float *restrict key_gain, const float *restrict cosine, const float *restrict sine, const float *restrict rstd,
                                T *restrict dqkv, float *restrict dquery_gain, float *restrict dkey_gain, long batch, long time, long heads,
                                long kv_heads, long width) {
    long half = width / 2, every = heads + 2 * kv_heads;
    float turned[1024]; /* widest head */
    for (long b = 0; b < batch; b++)
        for (long t = 0; t < time; t++)
            for (long h = 0; h < every; h++, qkv += width, dqkv += width) {
                if (h >= heads + kv_heads) {
                    memcpy(dqkv, dv + ((b * kv_heads + h - heads - kv_heads) * time + t) * width, width * sizeof(T));
                    continue;
                }
                const float *gain = h < heads ? query_gain : key_gain, *c = cosine + t * width, *s = sine + t * width;
                float *dgain = h < heads ? dquery_gain : dkey_gain;
                const T *d = h < heads ? dq + ((b * heads + h) * time + t) * width
                                       : dk + ((b * kv_heads + h - heads) * time + t) * width;
                vector products = {};
                EACH(i, half) {
                    long n = half - i;
                    vector a = LOAD(d + i, n), z = LOAD(d + half + i, n), co = load_fp32(c + i, n), si = load_fp32(s + i, n);
                    vector low = a * co + z * si, high = z * co - a * si;
                    store_fp32(turned + i, low, n);
                    store_fp32(turned + half + i, high, n);
                    products += low * load_fp32(gain + i, n) * LOAD(qkv + i, n) + high * load_fp32(gain + half + i, n) * LOAD(qkv + half + i, n);
                }
                float scale = *rstd++, common = total(products) * scale * scale * scale / width;
                EACH(i, width) {
                    long n = width - i;
                    vector x = LOAD(qkv + i, n), g = load_fp32(turned + i, n) * scale;
                    STORE(dqkv + i, g * load_fp32(gain + i, n) - x * common, n);
                    store_fp32(dgain + i, load_fp32(dgain + i, n) + g * x, n);
                }
            }
}

/* silu(gate) * up; each row of `in` is gate then up, `width` long both. */
void NAME(swiglu)(const T *restrict in, T *restrict out, long rows, long width) {
    for (long r = 0; r < rows; r++, in += 2 * width, out += width)
        EACH(i, width) {
            vector g = LOAD(in + i, width - i);
            STORE(out + i, g * sigmoid(g) * LOAD(in + width + i, width - i), width - i);
        }
}

void NAME(swiglu_backward)(const T *restrict dout, const T *restrict in, T *restrict din, long rows, long width) {
    for (long r = 0; r < rows; r++, in += 2 * width, din += 2 * width, dout += width)
        EACH(i, width) {
            long n = width - i;
            vector g = LOAD(in + i, n), d = LOAD(dout + i, n), s = sigmoid(g);
            STORE(din + i, d * LOAD(in + width + i, n) * s * (1.0f + g * (1.0f - s)), n);
            STORE(din + width + i, d * g * s, n);
        }
}

/* Rows of scores become probabilities of the positions up to `begin` + their own; the rest 0. In place.
   scores: (count, rows, columns). */
void NAME(causal_softmax)(T *restrict scores, long count, long rows, long columns, long begin, float scale) {
    float e[columns + 16];
    for (long n = 0; n < count; n++)
        for (long r = 0; r < rows; r++, scores += columns) {
            long seen = begin + r + 1;
            float top = NAME(largest)(scores, seen);
            vector sum = {};
            EACH(i, seen) {
                vector x = first(exp_((LOAD(scores + i, seen - i) - top) * scale), seen - i, 0.0f);
                store_fp32(e + i, x, 16);
                sum += x;
            }
            float share = 1.0f / total(sum);
            EACH(i, seen) STORE(scores + i, load_fp32(e + i, 16) * share, seen - i);
            memset(scores + seen, 0, (columns - seen) * sizeof(T));
        }
}

/* Gradients of probabilities become gradients of scores, in place. */
void NAME(causal_softmax_backward)(T *restrict d, const T *restrict p, long count, long rows, long columns, long begin, float scale) {
    for (long n = 0; n < count; n++)
        for (long r = 0; r < rows; r++, d += columns, p += columns) {
            long seen = begin + r + 1;
            vector products = {};
            EACH(i, seen) products += LOAD(d + i, seen - i) * LOAD(p + i, seen - i);
            float dot = total(products);
            EACH(i, seen) STORE(d + i, (LOAD(d + i, seen - i) - dot) * LOAD(p + i, seen - i) * scale, seen - i);
            memset(d + seen, 0, (columns - seen) * sizeof(T));
        }
}

/* Returns the sum of -ln p(target); logits become p - 1[target], the gradient of that sum. Rows whose target is
   negative (padding) count nothing and have no gradient. */
double NAME(cross_entropy)(T *restrict logits, const int64_t *restrict targets, long rows, long width) {
    double loss = 0.0;
    float e[width + 16];
    for (long r = 0; r < rows; r++, logits += width) {
        if (targets[r] < 0) {
            memset(logits, 0, width * sizeof(T));
            continue;
        }
        T *at = logits + targets[r];
        float top = NAME(largest)(logits, width), target = LOAD(at, 1)[0];
        vector sum = {};
        EACH(i, width) {
            vector x = first(exp_(LOAD(logits + i, width - i) - top), width - i, 0.0f);
            store_fp32(e + i, x, 16);
            sum += x;
        }
        float all_of_it = total(sum), share = 1.0f / all_of_it;
        EACH(i, width) STORE(logits + i, load_fp32(e + i, 16) * share, width - i);
        STORE(at, exp_(all(target - top)) * share - 1.0f, 1);
        loss += (double)(logf(all_of_it) + top - target);
    }
    return loss;
}

/* For each token: its own vector plus `scale` times those of its factors, which are indices[offsets[token]] to
   indices[offsets[token + 1] - 1]; in fp32 and in T. */
void NAME(token_table)(const float *restrict own, const float *restrict factors, const int64_t *restrict indices, const int64_t *restrict offsets,
                       float *restrict table, T *restrict low, long tokens, long width, float scale) {
    for (long t = 0; t < tokens; t++, own += width, table += width, low += width)
        EACH(i, width) {
            long n = width - i;
            vector shared = {};
            for (int64_t at = offsets[t]; at < offsets[t + 1]; at++) shared += load_fp32(factors + indices[at] * width + i, n);
            vector v = load_fp32(own + i, n) + shared * scale;
            store_fp32(table + i, v, n);
            STORE(low + i, v, n);
        }
}

/* The gradient of the tokens' own vectors is that of both tables; that of the factors its sum over their tokens. */
void NAME(token_table_backward)(const float *restrict dtable, const T *restrict dlow, float *restrict dtokens, const int64_t *restrict indices, const int64_t *restrict offsets,
                                float *restrict dfactors, long tokens, long width, float scale) {
    for (long t = 0; t < tokens; t++, dtable += width, dlow += width, dtokens += width)
        EACH(i, width) {
            long n = width - i;
            vector v = load_fp32(dtable + i, n) + LOAD(dlow + i, n);
            store_fp32(dtokens + i, v, n);
            for (int64_t at = offsets[t]; at < offsets[t + 1]; at++) {
                float *into = dfactors + indices[at] * width + i;
                store_fp32(into, load_fp32(into, n) + v * scale, n);
            }
        }
}

#endif
