/* Reading tokens one after the other: the whole network in one call, for one text or for many at once.

   Such a step is all products of matrices with a few rows, so it is as quick as the weights come from memory, and only if
   nothing is in between. Matrices are laid out for that by model/decoder.py: in panels of 64 outputs, whose weights for
   one input (fp32), two (bf16) or four (int8) lie next to each other, so that a panel is read from front to back once
   and each of its 64 sums grows in a lane of its own. Rows that are read together share that reading.

   Every number is one sum in a constant order: it does not depend on how many rows are read together or which texts they
   belong to, nor on the number of threads, which only share out panels and heads.

   This file includes itself three times, for matrices in fp32, bf16 and int8; keys and values are kept in fp32 for the
   first, in bf16 for the others; all else is fp32. Plain C on vectors of 16 floats as in kernels.c, from which a few lines
   are repeated here: every recipe names that file by its bytes, so they cannot be shared. */

#ifndef CACHED
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define AVX512
#endif

#define PANEL 64 /* outputs */
#define LANES (PANEL / 16)
#define ROWS 32 /* that go through the network together, at most */
#ifdef AVX512
#define TOGETHER 6 /* rows whose sums of a panel fit into registers */
#else
#define TOGETHER 2
#endif
#define PART 32 /* inputs that share a scale in int8 */
#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;
typedef float vector __attribute__((vector_size(64)));
typedef int32_t integers __attribute__((vector_size(64)));
typedef uint32_t bits __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));

#define EACH(i, n) for (long i = 0; i < (n); i += 16) /* loads and stores take what is left of the row, at most 16 */

static const integers lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
INLINE vector all(float x) { return (vector){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE vector choose(integers where, vector a, vector b) { return (vector)(((integers)a & where) | ((integers)b & ~where)); }
INLINE vector max2(vector a, vector b) { return choose(a > b, a, b); }
INLINE vector first(vector v, long n, float rest) { return n >= 16 ? v : choose(lanes < (int32_t)n, v, all(rest)); }
INLINE vector whole(const void *p) { return *(const vector *)p; } /* aligned */
INLINE long up_to(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }
INLINE long least(long a, long b) { return a < b ? a : b; }

INLINE vector load_fp32(const float *p, long n) { vector v = {}; if (n >= 16) memcpy(&v, p, 64); else memcpy(&v, p, 4 * n); return v; }
INLINE void store_fp32(float *p, vector v, long n) { if (n >= 16) memcpy(p, &v, 64); else memcpy(p, &v, 4 * n); }
#ifdef AVX512
INLINE bits widened(halves h) { return (bits)_mm512_cvtepu16_epi32((__m256i)h); } /* as __builtin_convertvector, in one instruction */
INLINE halves narrowed(bits b) { return (halves)_mm512_cvtepi32_epi16((__m512i)b); }
#else
INLINE bits widened(halves h) { return __builtin_convertvector(h, bits); }
INLINE halves narrowed(bits b) { return __builtin_convertvector(b, halves); }
#endif
INLINE vector load_bf16(const bf16 *p) {
    halves h;
    memcpy(&h, p, 32);
    return (vector)(widened(h) << 16);
}
/* Rounded to nearest, ties to even; a NaN stays one. */
INLINE void store_bf16(bf16 *p, vector v, long n) {
    bits b = (bits)v, rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
    halves h = narrowed((bits)choose(v == v, (vector)rounded, (vector)((bits){} + 0x7fc0)));
    if (n >= 16) memcpy(p, &h, 32); else memcpy(p, &h, 2 * n);
}
INLINE float from_bf16(bf16 x) {
    uint32_t b = (uint32_t)x << 16;
    float result;
    memcpy(&result, &b, 4);
    return result;
}

INLINE float total(vector v) {
    float s[16];
    memcpy(s, &v, 64);
    for (int half = 8; half; half /= 2) for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}
INLINE float largest(vector v) {
    float s[16];
    memcpy(s, &v, 64);
    for (int half = 8; half; half /= 2) for (int i = 0; i < half; i++) s[i] = s[i] > s[i + half] ? s[i] : s[i + half];
    return s[0];
}

/* e^x to about 1 unit in the last place, see kernels.c. */
INLINE vector exp_(vector x) {
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

/* --- the network, as model/decoder.py gives it ----------------------------------------------------------------------- */

typedef struct {
    const void *qkv, *output, *gate_up, *down; /* panels */
    const float *attention_gain, *query_gain, *key_gain, *feed_forward_gain; /* those of queries and keys may be NULL */
    const float *values;       /* (V, K W), added to the values of a token, or NULL */
    const float *phase_scales; /* (H, phases) */
} layer_t;

typedef struct {
    int64_t vocabulary, layers, width, heads, kv_heads, head_width, hidden, context, phases;
    double epsilon;
    const layer_t *layer;
    const void *head; /* panels, which also are the tokens' vectors */
    const float *final_gain, *cosine, *sine; /* (context, W) */
    const float *phase[3];                   /* cosine and sine of each phase: (V, 2) where by_token, else (context, 2) */
    int64_t by_token[3];
    const float *ngram_table[2]; /* (ngram_rows, D), or NULL */
    int64_t ngram_rows[2];
    const float *ngram_share; /* (layers,) */
} network_t;

/* --- threads ---------------------------------------------------------------------------------------------------------

   A step has a few places where all threads must have come before any goes on, some microseconds apart. So they wait
   spinning; but not for long, because the one they wait for may need this core. */

#define MOST_THREADS 64
#define SPINS 1500
#define SIZES 6 /* of steps: 1, 2 to 3, 4 to 7 ... 32 rows */
#define CHOICES 7 /* of threads: 1, 2, 4 ... */

typedef struct {
    const network_t *n;
    long threads;   /* at most */
    pid_t process;  /* that the threads are in: they are not copied by fork */
    pthread_t thread[MOST_THREADS];
    pthread_mutex_t calls, sleep;
    pthread_cond_t wake;
    atomic_long job, stage, arrived, sleepers; /* job: its number * 256 + the threads that do it, 0 to end */
    double seconds[SIZES][CHOICES]; /* of a step, smoothed */
    long last[SIZES];               /* choice */

    /* the step */
    void (*work)(void *, long, long);
    void *cache;
    int32_t *texts;
    const int32_t *tokens, *slots, *positions;
    long rows, runs, run[ROWS + 1], every;
    float *logits;

    /* memory for it: of all threads, and of each */
    float *x, *memory, *qkv, *heads, *hidden;
    long input_row;
    char *input[MOST_THREADS];
    float *scores[MOST_THREADS];
} engine_t;

static void rest(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void await(engine_t *e, atomic_long *word, long old) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        rest();
    }
    pthread_mutex_lock(&e->sleep);
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(word) == old) pthread_cond_wait(&e->wake, &e->sleep);
    atomic_fetch_sub(&e->sleepers, 1);
    pthread_mutex_unlock(&e->sleep);
}

static void announce(engine_t *e, atomic_long *word, long value) {
    atomic_store(word, value);
    if (atomic_load(&e->sleepers)) {
        pthread_mutex_lock(&e->sleep);
        pthread_cond_broadcast(&e->wake);
        pthread_mutex_unlock(&e->sleep);
    }
}

/* Wait until all `parts` threads have come here. */
static void meet(engine_t *e, long parts) {
    if (parts == 1) return;
    long stage = atomic_load(&e->stage);
    if (atomic_fetch_add(&e->arrived, 1) == parts - 1) {
        atomic_store(&e->arrived, 0);
        announce(e, &e->stage, stage + 1);
    } else await(e, &e->stage, stage);
}

typedef struct { engine_t *e; long part; } helper_t;

static void *help(void *argument) {
    helper_t own = *(helper_t *)argument;
    engine_t *e = own.e;
    free(argument);
    for (long job = 256;;) {
        await(e, &e->job, job);
        job = atomic_load(&e->job);
        if (!job) return NULL;
        if (own.part < job % 256) e->work(e, own.part, job % 256);
    }
}

/* Start the helpers, once in each process; afterwards e->threads is what there is. */
static void hire(engine_t *e) {
    if (e->process == getpid()) return;
    e->process = getpid();
    pthread_mutex_init(&e->sleep, NULL);
    pthread_cond_init(&e->wake, NULL);
    atomic_long *words[] = {&e->stage, &e->arrived, &e->sleepers};
    for (int i = 0; i < 3; i++) atomic_store(words[i], 0);
    atomic_store(&e->job, 256);
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before); /* signals are for the program's own threads */
    for (long part = 1; part < e->threads; part++) {
        helper_t *own = malloc(sizeof *own);
        if (own) *own = (helper_t){e, part};
        if (!own || pthread_create(&e->thread[part], NULL, help, own)) {
            free(own);
            e->threads = part;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Do the step by as many threads as did steps of so many rows quickest lately. What was not tried for long is thought a
   little better each time, so that it is tried again, the sooner the less is lost. The results are the same. */
static void share_out(engine_t *e) {
    long size = 0, choice = 0, choices = 1;
    while (size < SIZES - 1 && e->rows >> (size + 1)) size++;
    while (choices < CHOICES && 1L << (choices - 1) < e->threads) choices++;
    double *seconds = e->seconds[size];
    for (long c = 1; c < choices; c++) if (seconds[c] < seconds[choice]) choice = c;
    long parts = least(1L << choice, e->threads);
    double began = now();
    if (parts > 1) {
        hire(e);
        parts = least(parts, e->threads);
        announce(e, &e->job, (atomic_load(&e->job) / 256 + 1) * 256 + parts);
    }
    e->work(e, 0, parts);
    double took = now() - began;
    for (long c = 0; c < choices; c++) if (c != choice) seconds[c] *= 0.999;
    if (e->last[size] != choice) e->last[size] = choice; /* its first step also wakes the helpers: not counted */
    else if (seconds[choice] == 0.0) seconds[choice] = took;
    else seconds[choice] += 0.1 * ((took < 4 * seconds[choice] ? took : 4 * seconds[choice]) - seconds[choice]);
}

static float *floats(long count) {
    float *p = aligned_alloc(64, up_to(count * 4 + 64, 64));
    if (p) memset(p, 0, up_to(count * 4 + 64, 64));
    return p;
}

/* Memory for weights, in large pages where the system has them; NULL when there is none. */
void *take_block(int64_t bytes) {
    long page = 1L << 21;
    void *p = aligned_alloc(page, up_to(bytes, page));
#ifdef MADV_HUGEPAGE
    if (p) madvise(p, up_to(bytes, page), MADV_HUGEPAGE);
#endif
    return p;
}

void give_block(void *block) { free(block); }

void end_engine(engine_t *e) {
    if (!e) return;
    if (e->process == getpid()) {
        announce(e, &e->job, 0);
        for (long part = 1; part < e->threads; part++) pthread_join(e->thread[part], NULL);
    }
    float *shared[] = {e->x, e->memory, e->qkv, e->heads, e->hidden};
    for (int i = 0; i < 5; i++) free(shared[i]);
    for (long part = 0; part < MOST_THREADS; part++) free(e->input[part]), free(e->scores[part]);
    free(e);
}

/* What steps of this network need; NULL when there is no memory. */
engine_t *new_engine(const network_t *n, int64_t threads) {
    engine_t *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->n = n, e->threads = threads < 1 ? 1 : least(threads, MOST_THREADS);
    pthread_mutex_init(&e->calls, NULL);
    for (int size = 0; size < SIZES; size++) e->last[size] = -1;
    long W = n->head_width, deepest = n->width > n->hidden ? n->width : n->hidden;
    if (n->heads * W > deepest) deepest = n->heads * W;
    deepest = up_to(deepest, PANEL);
    e->input_row = up_to(deepest * 4, 64); /* fp32 needs most */
    int there = (e->x = floats(ROWS * n->width)) && (e->memory = floats(ROWS * n->width)) &&
                (e->qkv = floats(ROWS * (n->heads + 2 * n->kv_heads) * W)) && (e->heads = floats(ROWS * n->heads * W)) &&
                (e->hidden = floats(ROWS * up_to(n->hidden, PANEL / 2)));
    for (long part = 0; there && part < e->threads; part++)
        there = (e->input[part] = (char *)floats(ROWS * e->input_row / 4)) &&
                (e->scores[part] = floats(up_to(n->context, 16) + 4 * (W + 2 * n->phases + 16)));
    if (there) return e;
    end_engine(e);
    return NULL;
}

/* --- inputs and panels, in each precision ----------------------------------------------------------------------------

   put: the inputs of a product, `width` numbers, times `scale` and, if there is one, `gain`.
   sums: of one panel for 1 to TOGETHER rows of inputs; `next`: what to fetch meanwhile, or NULL.
   vector_of: a token's vector out of the panels of the head. */

INLINE float rms(const float *x, long width, double epsilon) {
    vector squares = {};
    EACH(i, width) {
        vector v = load_fp32(x + i, width - i);
        squares += v * v;
    }
    return 1.0f / sqrtf(total(squares) / width + (float)epsilon);
}

INLINE vector scaled(const float *x, const float *gain, float scale, long n) {
    vector v = load_fp32(x, n) * scale;
    return gain ? v * load_fp32(gain, n) : v;
}

#define SUMS(suffix) INLINE void sums_##suffix(const void *panel, long depth, const char *in, long row, const char *next, float out[][PANEL], const int rows)
/* Half as many bytes of what comes next as are read in this place. */
#define FETCH(k) do { if (next) for (int j = 0; j < LANES / 2; j++) __builtin_prefetch(next + (k) * (PANEL * 2) + 64 * j, 0, 2); } while (0)

#define depth_fp32(width) (width)
#define panel_bytes_fp32(depth) ((depth) * PANEL * 4)

static void put_fp32(char *in, const float *x, const float *gain, float scale, long width) {
    EACH(i, width) store_fp32((float *)in + i, scaled(x + i, gain ? gain + i : NULL, scale, width - i), width - i);
}

SUMS(fp32) {
    const float *w = panel;
    vector s[TOGETHER][LANES] = {};
    for (long k = 0; k < depth; k++, w += PANEL) {
        vector v[LANES];
        FETCH(k);
        for (int j = 0; j < LANES; j++) v[j] = whole(w + 16 * j);
        for (int r = 0; r < rows; r++) {
            vector x = all(((const float *)(in + r * row))[k]);
            for (int j = 0; j < LANES; j++) s[r][j] += v[j] * x;
        }
    }
    for (int r = 0; r < rows; r++) for (int j = 0; j < LANES; j++) store_fp32(out[r] + 16 * j, s[r][j], 16);
}

static void vector_of_fp32(const void *head, long token, long width, float *x) {
    const float *w = (const float *)head + token / PANEL * width * PANEL + token % PANEL;
    for (long i = 0; i < width; i++) x[i] = w[i * PANEL];
}

#define depth_bf16(width) up_to(width, 2)
#define panel_bytes_bf16(depth) ((depth) * PANEL * 2)

#if defined(AVX512) && defined(__AVX512BF16__)
static void put_bf16(char *in, const float *x, const float *gain, float scale, long width) {
    EACH(i, up_to(width, 2)) store_bf16((bf16 *)in + i, scaled(x + i, gain ? gain + i : NULL, scale, width - i), 16);
}

SUMS(bf16) {
    const uint32_t *w = panel;
    __m512 s[TOGETHER][LANES];
    for (int r = 0; r < rows; r++) for (int j = 0; j < LANES; j++) s[r][j] = _mm512_setzero_ps();
    for (long k = 0; k < depth / 2; k++, w += PANEL) {
        __m512bh v[LANES];
        FETCH(k);
        for (int j = 0; j < LANES; j++) v[j] = (__m512bh)_mm512_load_si512(w + 16 * j);
        for (int r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t *)(in + r * row))[k]);
            for (int j = 0; j < LANES; j++) s[r][j] = _mm512_dpbf16_ps(s[r][j], v[j], x);
        }
    }
    for (int r = 0; r < rows; r++) for (int j = 0; j < LANES; j++) _mm512_storeu_ps(out[r] + 16 * j, s[r][j]);
}
#else
static void put_bf16(char *in, const float *x, const float *gain, float scale, long width) {
    EACH(i, up_to(width, 2)) store_fp32((float *)in + i, scaled(x + i, gain ? gain + i : NULL, scale, width - i), 16);
}

SUMS(bf16) {
    const uint32_t *w = panel;
    vector s[TOGETHER][LANES] = {};
    for (long k = 0; k < depth; k += 2, w += PANEL)
        for (int j = 0; j < LANES; j++) {
            bits v;
            memcpy(&v, w + 16 * j, 64);
            vector even = (vector)(v << 16), odd = (vector)(v & 0xffff0000);
            for (int r = 0; r < rows; r++) {
                const float *x = (const float *)(in + r * row);
                s[r][j] += even * x[k];
                s[r][j] += odd * x[k + 1];
            }
        }
    for (int r = 0; r < rows; r++) for (int j = 0; j < LANES; j++) store_fp32(out[r] + 16 * j, s[r][j], 16);
}
#endif

static void vector_of_bf16(const void *head, long token, long width, float *x) {
    const bf16 *w = (const bf16 *)head + token / PANEL * up_to(width, 2) * PANEL + token % PANEL * 2;
    for (long i = 0; i < width; i++) x[i] = from_bf16(w[i / 2 * (2 * PANEL) + i % 2]);
}

/* int8: a panel begins with the scales of its outputs; weights are stored plus 128. Inputs are numbers up to 127 with a
   scale for each 32, and -128 times their sum, with which each sum of products begins. Four inputs make a word, or two
   where the processor multiplies pairs: (0, 2) and (1, 3). */
#define depth_int8(width) up_to(width, PART)
#define panel_bytes_int8(depth) ((depth) * PANEL + PANEL * 4)
#if defined(AVX512) && defined(__AVX512VNNI__)
#define WORDS 1
#else
#define WORDS 2
#endif
#define WORDS_OF(depth) ((depth) / 4 * WORDS)

static void put_int8(char *in, const float *x, const float *gain, float scale, long width) {
    long depth = up_to(width, PART);
    float *scales = (float *)in + WORDS_OF(depth);
    int32_t *starts = (int32_t *)scales + depth / PART;
    for (long part = 0; part < depth; part += PART) {
        vector v[2];
        for (int i = 0; i < 2; i++) {
            long at = part + 16 * i;
            v[i] = at < width ? scaled(x + at, gain ? gain + at : NULL, scale, width - at) : (vector){};
        }
        float most = largest(max2(max2(v[0], -v[0]), max2(v[1], -v[1])));
        float step = most / 127.0f, each = most > 0.0f ? 127.0f / most : 0.0f;
        int32_t number[PART];
        for (int i = 0; i < 2; i++) {
            /* The nearest integer, ties to even: beyond 1.5 * 2^23 a float has no place for a fraction. */
            integers nearest = (integers)(v[i] * each + 12582912.0f) - 0x4b400000;
            memcpy(number + 16 * i, &nearest, 64);
        }
        int32_t all_of_it = 0;
        for (int i = 0; i < PART; i++) all_of_it += number[i];
        for (int i = 0; i < PART; i += 4) {
            long word = (part + i) / 4;
#if WORDS == 1
            for (int j = 0; j < 4; j++) ((int8_t *)in)[4 * word + j] = (int8_t)number[i + j];
#else
            for (int j = 0; j < 4; j++) ((int16_t *)in)[4 * word + j % 2 * 2 + j / 2] = (int16_t)number[i + j];
#endif
        }
        scales[part / PART] = step;
        starts[part / PART] = -128 * all_of_it;
    }
}

/* s + the four products of each lane. */
INLINE integers multiply(integers s, integers w, const int32_t *x) {
#if WORDS == 1
    return (integers)_mm512_dpbusd_epi32((__m512i)s, (__m512i)w, _mm512_set1_epi32(*x));
#else
    integers low = w & 0x00ff00ff, high = (integers)((bits)w >> 8) & 0x00ff00ff;
#if defined(AVX512)
    return s + (integers)_mm512_madd_epi16((__m512i)low, _mm512_set1_epi32(x[0])) + (integers)_mm512_madd_epi16((__m512i)high, _mm512_set1_epi32(x[1]));
#elif defined(__AVX2__)
    __m256i half[2], a[2], b[2];
    memcpy(a, &low, 64), memcpy(b, &high, 64);
    for (int i = 0; i < 2; i++) half[i] = _mm256_add_epi32(_mm256_madd_epi16(a[i], _mm256_set1_epi32(x[0])), _mm256_madd_epi16(b[i], _mm256_set1_epi32(x[1])));
    integers products;
    memcpy(&products, half, 64);
    return s + products;
#else
    const int16_t *n = (const int16_t *)x;
    return s + (low & 0xffff) * n[0] + (low >> 16) * n[1] + (high & 0xffff) * n[2] + (high >> 16) * n[3];
#endif
#endif
}

SUMS(int8) {
    const float *panel_scales = panel;
    const int32_t *w = (const int32_t *)panel + PANEL;
    memset(out, 0, rows * sizeof *out);
    for (long part = 0; part < depth / PART; part++) {
        integers sum[TOGETHER][LANES];
        for (int r = 0; r < rows; r++) {
            const int32_t *starts = (const int32_t *)(in + r * row) + WORDS_OF(depth) + depth / PART;
            for (int j = 0; j < LANES; j++) sum[r][j] = (integers){} + starts[part];
        }
        for (long k = part * PART / 4; k < (part + 1) * PART / 4; k++, w += PANEL) {
            integers v[LANES];
            FETCH(k);
            for (int j = 0; j < LANES; j++) memcpy(v + j, w + 16 * j, 64);
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < LANES; j++) sum[r][j] = multiply(sum[r][j], v[j], (const int32_t *)(in + r * row) + k * WORDS);
        }
        for (int r = 0; r < rows; r++) {
            float scale = ((const float *)(in + r * row))[WORDS_OF(depth) + part];
            for (int j = 0; j < LANES; j++) store_fp32(out[r] + 16 * j, whole(out[r] + 16 * j) + __builtin_convertvector(sum[r][j], vector) * scale, 16);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < LANES; j++) store_fp32(out[r] + 16 * j, whole(out[r] + 16 * j) * whole(panel_scales + 16 * j), 16);
}

static void vector_of_int8(const void *head, long token, long width, float *x) {
    const char *panel = (const char *)head + token / PANEL * panel_bytes_int8(up_to(width, PART));
    float scale = ((const float *)panel)[token % PANEL];
    const uint8_t *w = (const uint8_t *)panel + PANEL * 4 + token % PANEL * 4;
    for (long i = 0; i < width; i++) x[i] = ((int)w[i / 4 * (4 * PANEL) + i % 4] - 128) * scale;
}

/* --- around the products --------------------------------------------------------------------------------------------- */

/* The two vectors of a token and the one before it, as in model/ngrams.py. */
static void remember(const network_t *n, int64_t token, int64_t before, float *memory) {
    uint64_t hash = ((uint64_t)token * 0x4F1BBCDCBFA53E0B + (uint64_t)before * 0x2F16AC6C59DE6F8D) & INT64_MAX;
    for (long i = 0; i < n->width; i++) {
        float sum = 0.0f;
        for (int table = 0; table < 2; table++) {
            float x = n->ngram_table[table][hash % n->ngram_rows[table] * n->width + i];
            sum += hash >> (60 + table) & 1 ? -x : x;
        }
        memory[i] = sum;
    }
}

/* A query or key: normed if there is a gain, turned by its position (Su et al. 2021), times scale. */
static void turned(const network_t *n, const float *in, const float *gain, long position, float scale, float *out) {
    long width = n->head_width, half = width / 2;
    const float *cosine = n->cosine + position * width, *sine = n->sine + position * width;
    float norm = gain ? rms(in, width, n->epsilon) : 1.0f;
    EACH(i, half) {
        long left = half - i;
        vector a = scaled(in + i, gain ? gain + i : NULL, norm, left), z = scaled(in + half + i, gain ? gain + half + i : NULL, norm, left);
        vector co = load_fp32(cosine + i, left), si = load_fp32(sine + i, left);
        store_fp32(out + i, (a * co - z * si) * scale, left);
        store_fp32(out + half + i, (z * co + a * si) * scale, left);
    }
}

enum { STORE, ADD, GATE };

/* Runs of rows that belong to the same slot, which follow each other. */
static void find_runs(engine_t *e) {
    e->runs = 0;
    for (long r = 0; r < e->rows; r++)
        if (r == 0 || e->slots[r] != e->slots[r - 1]) e->run[e->runs++] = r;
    e->run[e->runs] = e->rows;
}

/* Elements of the cache of one head, and where a position's key and value are in it: keys in blocks of 16 positions, so
   that 16 scores grow at once. */
static long head_cache(const network_t *n) {
    return up_to(n->context, 16) * (n->head_width + 2 * n->phases) + n->context * up_to(n->head_width, 16);
}

/* Elements of the cache of one slot. */
int64_t slot_cache(const network_t *n) { return n->layers * n->kv_heads * head_cache(n); }

/* s: of `count` blocks of 16 keys, their products with q; the even and the odd numbers by themselves. */
#define SCORES(count) do { \
    for (long i = 0; i < own; i += 2) \
        for (int b = 0; b < count; b++) { \
            s[b] += LOAD(k + 16 * (b * own + i)) * q[i]; \
            odd[b] += LOAD(k + 16 * (b * own + i + 1)) * q[i + 1]; \
        } \
    for (int b = 0; b < count; b++) s[b] += odd[b]; \
} while (0)

#define CACHED float
#define LOAD(p) load_fp32(p, 16)
#define SAVE(p, v, n) store_fp32(p, v, n)
#define NAME(x) x##_fp32
#include "decode.c"
#undef CACHED
#undef LOAD
#undef SAVE
#undef NAME
#define CACHED bf16
#define LOAD(p) load_bf16(p)
#define SAVE(p, v, n) store_bf16(p, v, n)
#define NAME(x) x##_bf16
#include "decode.c"
#undef NAME
#define NAME(x) x##_int8
#include "decode.c"

#else

static void NAME(panel)(const void *panel, long depth, const char *in, long row, const char *next, float out[][PANEL], long rows) {
    switch (rows) {
    case 1: NAME(sums)(panel, depth, in, row, NULL, out, 1); break;
    case 2: NAME(sums)(panel, depth, in, row, next, out, 2); break;
#if TOGETHER == 6
    case 3: NAME(sums)(panel, depth, in, row, next, out, 3); break;
    case 4: NAME(sums)(panel, depth, in, row, next, out, 4); break;
    case 5: NAME(sums)(panel, depth, in, row, next, out, 5); break;
    case 6: NAME(sums)(panel, depth, in, row, next, out, 6); break;
#endif
    }
}

/* This thread's share of `matrix` times rows [from, to) of the step, which are in x, normed if there is a gain.
   GATE: of 64 outputs the first 32 are gates of the others. */
static void NAME(product)(engine_t *e, long part, long parts, const void *matrix, const float *x, const float *gain, long width, long from, long to,
                          float *out, long outputs, int then) {
    char *in = e->input[part];
    long depth = NAME(depth)(width), row = e->input_row, panels = (outputs + PANEL - 1) / PANEL;
    for (long r = from; r < to; r++) {
        const float *own = x + r * width;
        NAME(put)(in + (r - from) * row, own, gain, gain ? rms(own, width, e->n->epsilon) : 1.0f, width);
    }
    for (long p = panels * part / parts; p < panels * (part + 1) / parts; p++)
        for (long r = 0, count; r < to - from; r += count) {
            float sums[TOGETHER][PANEL] ALIGNED;
            count = least(TOGETHER, to - from - r);
            /* Many rows take longer than reading weights from memory: the first two groups of them fetch the next panel. */
            long bytes = NAME(panel_bytes)(depth), halves_fetched = r / TOGETHER;
            const char *panel = (const char *)matrix + p * bytes;
            int fetch = to - from > TOGETHER && halves_fetched < 2 && p + 1 < panels;
            NAME(panel)(panel, depth, in + r * row, row, fetch ? panel + bytes + halves_fetched * bytes / 2 : NULL, sums, count);
            for (long i = 0; i < count; i++) {
                if (then == GATE) {
                    float *to_row = out + (r + i) * (outputs / 2) + p * PANEL / 2;
                    EACH(j, PANEL / 2) {
                        vector g = whole(sums[i] + j), up = whole(sums[i] + PANEL / 2 + j);
                        store_fp32(to_row + j, g / (1.0f + exp_(-g)) * up, 16);
                    }
                    continue;
                }
                float *to_row = out + (r + i) * outputs + p * PANEL;
                long there = least(PANEL, outputs - p * PANEL);
                EACH(j, there) {
                    vector v = whole(sums[i] + j);
                    store_fp32(to_row + j, then == ADD ? load_fp32(to_row + j, there - j) + v : v, there - j);
                }
            }
        }
}

/* Of one run and one head of keys: put its keys and values into the cache, then let its queries look at all there are. */
static void NAME(attend)(engine_t *e, long l, long run, long g, float *scores) {
    const network_t *n = e->n;
    const layer_t *layer = n->layer + l;
    long W = n->head_width, own = W + 2 * n->phases, group = n->heads / n->kv_heads, row = (n->heads + 2 * n->kv_heads) * W;
    long slot = e->slots[e->run[run]], value_row = up_to(W, 16);
    CACHED *keys = (CACHED *)e->cache + slot * slot_cache(n) + (l * n->kv_heads + g) * head_cache(n);
    CACHED *values = keys + up_to(n->context, 16) * own;
    float *q = scores + up_to(n->context, 16);
    for (long r = e->run[run]; r < e->run[run + 1]; r++) {
        long position = e->positions[r], token = e->tokens[r];
        const float *key = e->qkv + r * row + (n->heads + g) * W, *value = key + n->kv_heads * W;
        const float *more = layer->values ? layer->values + (token * n->kv_heads + g) * W : NULL;
        turned(n, key, layer->key_gain, position, 1.0f, q);
        for (long p = 0; p < n->phases; p++) memcpy(q + W + 2 * p, n->phase[p] + 2 * (n->by_token[p] ? token : position), 8);
        CACHED *at = keys + position / 16 * 16 * own + position % 16;
        EACH(i, own) {
            CACHED some[16];
            SAVE(some, load_fp32(q + i, 16), 16);
            for (long j = 0; j < least(16, own - i); j++) at[16 * (i + j)] = some[j];
        }
        EACH(i, W) {
            vector v = load_fp32(value + i, W - i);
            SAVE(values + position * value_row + i, more ? v + load_fp32(more + i, W - i) : v, 16);
        }
    }
    for (long r = e->run[run]; r < e->run[run + 1]; r++)
        for (long h = g * group; h < (g + 1) * group; h++) {
            long position = e->positions[r], token = e->tokens[r], seen = position + 1;
            turned(n, e->qkv + r * row + h * W, layer->query_gain, position, 1.0f / sqrtf(W), q);
            for (long p = 0; p < n->phases; p++) {
                const float *feature = n->phase[p] + 2 * (n->by_token[p] ? token : position);
                for (int i = 0; i < 2; i++) q[W + 2 * p + i] = feature[i] * layer->phase_scales[h * n->phases + p];
            }
            vector top = all(-INFINITY), sum = {};
            for (long t = 0; t < seen; t += 64) {
                const CACHED *k = keys + t * own;
                long blocks = least(4, (seen - t + 15) / 16);
                vector s[4], odd[4];
                for (int b = 0; b < 4; b++) s[b] = odd[b] = all(0.0f);
                switch (blocks) { /* each with two sums that do not wait for each other */
                case 4: SCORES(4); break;
                case 3: SCORES(3); break;
                case 2: SCORES(2); break;
                case 1: SCORES(1); break;
                }
                for (long b = 0; b < blocks; b++) {
                    s[b] = first(s[b], seen - t - 16 * b, -INFINITY);
                    top = max2(top, s[b]);
                    store_fp32(scores + t + 16 * b, s[b], 16);
                }
            }
            float most = largest(top);
            EACH(t, seen) {
                vector v = first(exp_(load_fp32(scores + t, 16) - most), seen - t, 0.0f);
                sum += v;
                store_fp32(scores + t, v, 16);
            }
            float share = 1.0f / total(sum);
            EACH(i, W) {
                vector v[4] = {};
                long t = 0;
                for (; t + 4 <= seen; t += 4)
                    for (int j = 0; j < 4; j++) v[j] += LOAD(values + (t + j) * value_row + i) * scores[t + j];
                for (int j = 0; t + j < seen; j++) v[j] += LOAD(values + (t + j) * value_row + i) * scores[t + j];
                store_fp32(e->heads + (r * n->heads + h) * W + i, ((v[0] + v[1]) + (v[2] + v[3])) * share, W - i);
            }
        }
}

static void NAME(work)(void *engine, long part, long parts) {
    engine_t *e = engine;
    const network_t *n = e->n;
    long D = n->width, inner = n->heads * n->head_width, all_heads = inner + 2 * n->kv_heads * n->head_width, hidden = up_to(n->hidden, PANEL / 2);
    for (long l = 0; l < n->layers; l++) {
        const layer_t *layer = n->layer + l;
        NAME(product)(e, part, parts, layer->qkv, e->x, layer->attention_gain, D, 0, e->rows, e->qkv, all_heads, STORE);
        meet(e, parts);
        for (long unit = part; unit < e->runs * n->kv_heads; unit += parts) NAME(attend)(e, l, unit / n->kv_heads, unit % n->kv_heads, e->scores[part]);
        meet(e, parts);
        NAME(product)(e, part, parts, layer->output, e->heads, NULL, inner, 0, e->rows, e->x, D, ADD);
        meet(e, parts);
        NAME(product)(e, part, parts, layer->gate_up, e->x, layer->feed_forward_gain, D, 0, e->rows, e->hidden, 2 * hidden, GATE);
        meet(e, parts);
        NAME(product)(e, part, parts, layer->down, e->hidden, NULL, hidden, 0, e->rows, e->x, D, ADD);
        meet(e, parts);
        if (n->ngram_share && l + 1 < n->layers) {
            for (long r = part; r < e->rows; r += parts) for (long i = 0; i < D; i++) e->x[r * D + i] += e->memory[r * D + i] * n->ngram_share[l + 1];
            meet(e, parts);
        }
    }
    long from = e->every ? 0 : e->rows - 1;
    if (e->logits) NAME(product)(e, part, parts, n->head, e->x, n->final_gain, D, from, e->rows, e->logits, n->vocabulary, STORE);
    meet(e, parts);
}

/* Append tokens to slots, in order: row r to slots[r] at positions[r]. Rows of one slot follow each other. logits: (count, V)
   with `every`, else (V,) after the last. texts: (slots, context), which is kept up to date. */
void NAME(decode)(engine_t *e, void *cache, int32_t *texts, const int32_t *tokens, const int32_t *slots, const int32_t *positions, int64_t count, int64_t every,
                  float *logits) {
    pthread_mutex_lock(&e->calls);
    const network_t *n = e->n;
    for (long begin = 0; begin < count; begin += ROWS) {
        e->work = NAME(work), e->cache = cache, e->every = every, e->rows = least(ROWS, count - begin);
        e->tokens = tokens + begin, e->slots = slots + begin, e->positions = positions + begin;
        e->logits = every ? logits + begin * n->vocabulary : begin + ROWS >= count ? logits : NULL;
        find_runs(e);
        for (long r = 0; r < e->rows; r++) {
            int32_t *text = texts + e->slots[r] * n->context, position = e->positions[r];
            text[position] = e->tokens[r];
            float *x = e->x + r * n->width, *memory = e->memory + r * n->width;
            NAME(vector_of)(n->head, e->tokens[r], n->width, x);
            if (!n->ngram_share) continue;
            remember(n, e->tokens[r], position ? text[position - 1] : 0, memory);
            for (long i = 0; i < n->width; i++) x[i] += memory[i] * n->ngram_share[0];
        }
        share_out(e);
    }
    pthread_mutex_unlock(&e->calls);
}

#endif
