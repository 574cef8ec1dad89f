/* The parts of the network between its matrix products, each in one pass over memory.

   PyTorch runs a norm or a rotation as five to fifteen operations, each reading and writing everything; with matrix
   units the products are so quick that this is most of a training step. Plain C, vectorised by the compiler, one
   thread, no libraries: model/operations.py compiles it once per machine and has the same formulas in PyTorch.

   This file includes itself twice: first for networks that compute in bf16, then in fp32. x, gains, statistics and
   gradients of gains are always fp32. Sums run in the order of the vector lanes: the same bits each time. */

#ifndef T
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

static inline float bits_to_float(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static inline uint32_t float_to_bits(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }
static inline float up(bf16 h) { return bits_to_float((uint32_t)h << 16); }
/* Round to nearest, ties to even, as the processor does; a NaN stays one. */
static inline bf16 down(float f) {
    uint32_t b = float_to_bits(f);
    uint32_t rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
    return f == f ? (bf16)rounded : (bf16)0x7fc0;
}

/* e^x to about 1 unit in the last place: 2^n times a polynomial (Cody & Waite reduction, degree-6 minimax). */
static inline float exp_(float x) {
    /* Not further: products with e^-88 would be denormal, which costs a hundred times as much as any other product. */
    x = x < -80.0f ? -80.0f : x > 80.0f ? 80.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_to_float((uint32_t)(((int32_t)n + 127) << 23));
}

/* Add n gradient elements to `sum`, as whole multiples of 1/scale (toward zero). What elements add that are not finite
   or too large does not matter: their step is dropped. */
void add_exact(const float *restrict g, int64_t *restrict sum, long n, float scale) {
    #pragma omp simd
    for (long i = 0; i < n; i++) {
        float s = g[i] * scale;
        s = s < 9.0e18f ? s : 9.0e18f; /* also where s is NaN */
        s = s > -9.0e18f ? s : -9.0e18f;
        sum[i] += (int64_t)s;
    }
}

#define T bf16
#define LOAD(x) up(x)
#define STORE(x) down(x)
#define NAME(x) x##_bf16
#include "kernels.c"
#undef T
#undef LOAD
#undef STORE
#undef NAME
#define T float
#define LOAD(x) (x)
#define STORE(x) (x)
#define NAME(x) x##_fp32
#include "kernels.c"

#else

/* y = x / rms(x) * gain for each row; rstd keeps 1 / rms. */
void NAME(rms_norm)(const float *restrict x, const float *restrict gain, T *restrict y, float *restrict rstd, long rows, long width, float epsilon) {
    for (long r = 0; r < rows; r++, x += width, y += width) {
        float squares = 0.0f;
        #pragma omp simd reduction(+ : squares)
        for (long i = 0; i < width; i++) squares += x[i] * x[i];
        float scale = rstd[r] = 1.0f / sqrtf(squares / width + epsilon);
        #pragma omp simd
        for (long i = 0; i < width; i++) y[i] = STORE(x[i] * scale * gain[i]);
    }
}

/* dx and the sum over rows of dgain. */
void NAME(rms_norm_backward)(const T *restrict dy, const float *restrict x, const float *restrict gain, const float *restrict rstd, float *restrict dx,
                             float *restrict dgain, long rows, long width) {
    for (long r = 0; r < rows; r++, dy += width, x += width, dx += width) {
        float scale = rstd[r], dot = 0.0f;
        #pragma omp simd reduction(+ : dot)
        for (long i = 0; i < width; i++) dot += LOAD(dy[i]) * gain[i] * x[i];
        float common = dot * scale * scale * scale / width;
        #pragma omp simd
        for (long i = 0; i < width; i++) {
            float d = LOAD(dy[i]);
            dx[i] = d * gain[i] * scale - x[i] * common;
            dgain[i] += d * x[i] * scale;
        }
    }
}

/* Take queries, keys and values out of a (batch, time, heads + 2 kv_heads, width) product; norm queries and keys and
   turn them by their positions. Results are (batch, heads, time, width). rstd: of each query and key. */
void NAME(split_heads)(const T *restrict qkv, const float *restrict query_gain, const float *restrict key_gain, const float *restrict cosine,
                       const float *restrict sine, T *restrict q, T *restrict k, T *restrict v, float *restrict rstd, long batch, long time, long heads,
                       long kv_heads, long width, float epsilon) {
    long half = width / 2, all = heads + 2 * kv_heads;
    for (long b = 0; b < batch; b++)
        for (long t = 0; t < time; t++)
            for (long h = 0; h < all; h++, qkv += width) {
                if (h >= heads + kv_heads) {
                    memcpy(v + ((b * kv_heads + h - heads - kv_heads) * time + t) * width, qkv, width * sizeof(T));
                    continue;
                }
                const float *gain = h < heads ? query_gain : key_gain, *c = cosine + t * width, *s = sine + t * width;
                T *out = h < heads ? q + ((b * heads + h) * time + t) * width
                                   : k + ((b * kv_heads + h - heads) * time + t) * width;
                float squares = 0.0f;
                #pragma omp simd reduction(+ : squares)
                for (long i = 0; i < width; i++) squares += LOAD(qkv[i]) * LOAD(qkv[i]);
                float scale = *rstd++ = 1.0f / sqrtf(squares / width + epsilon);
                #pragma omp simd
                for (long i = 0; i < half; i++) {
                    float a = LOAD(qkv[i]) * scale * gain[i], z = LOAD(qkv[i + half]) * scale * gain[i + half];
                    out[i] = STORE(a * c[i] - z * s[i]);
                    out[i + half] = STORE(z * c[i] + a * s[i]);
                }
            }
}

/* The gradient of the product, and the sums of both gains' gradients. */
void NAME(split_heads_backward)(const T *restrict dq, const T *restrict dk, const T *restrict dv, const T *restrict qkv, const float *restrict query_gain,
                                const float *restrict key_gain, const float *restrict cosine, const float *restrict sine, const float *restrict rstd,
                                T *restrict dqkv, float *restrict dquery_gain, float *restrict dkey_gain, long batch, long time, long heads,
                                long kv_heads, long width) {
    long half = width / 2, all = heads + 2 * kv_heads;
    float turned[1024]; /* widest head */
    for (long b = 0; b < batch; b++)
        for (long t = 0; t < time; t++)
            for (long h = 0; h < all; h++, qkv += width, dqkv += width) {
                if (h >= heads + kv_heads) {
                    memcpy(dqkv, dv + ((b * kv_heads + h - heads - kv_heads) * time + t) * width, width * sizeof(T));
                    continue;
                }
                const float *gain = h < heads ? query_gain : key_gain, *c = cosine + t * width, *s = sine + t * width;
                float *dgain = h < heads ? dquery_gain : dkey_gain;
                const T *d = h < heads ? dq + ((b * heads + h) * time + t) * width
                                       : dk + ((b * kv_heads + h - heads) * time + t) * width;
                #pragma omp simd
                for (long i = 0; i < half; i++) {
                    float a = LOAD(d[i]), z = LOAD(d[i + half]);
                    turned[i] = a * c[i] + z * s[i];
                    turned[i + half] = z * c[i] - a * s[i];
                }
                float scale = *rstd++, dot = 0.0f;
                #pragma omp simd reduction(+ : dot)
                for (long i = 0; i < width; i++) dot += turned[i] * gain[i] * LOAD(qkv[i]);
                float common = dot * scale * scale * scale / width;
                #pragma omp simd
                for (long i = 0; i < width; i++) {
                    float x = LOAD(qkv[i]);
                    dqkv[i] = STORE(turned[i] * gain[i] * scale - x * common);
                    dgain[i] += turned[i] * x * scale;
                }
            }
}

/* silu(gate) * up; each row of `in` is gate then up, `width` long both. */
void NAME(swiglu)(const T *restrict in, T *restrict out, long rows, long width) {
    for (long r = 0; r < rows; r++, in += 2 * width, out += width) {
        #pragma omp simd
        for (long i = 0; i < width; i++) {
            float g = LOAD(in[i]);
            float sigmoid = 1.0f / (1.0f + exp_(-g));
            out[i] = STORE(g * sigmoid * LOAD(in[i + width]));
        }
    }
}

void NAME(swiglu_backward)(const T *restrict dout, const T *restrict in, T *restrict din, long rows, long width) {
    for (long r = 0; r < rows; r++, in += 2 * width, din += 2 * width, dout += width) {
        #pragma omp simd
        for (long i = 0; i < width; i++) {
            float g = LOAD(in[i]), u = LOAD(in[i + width]), d = LOAD(dout[i]);
            float sigmoid = 1.0f / (1.0f + exp_(-g));
            din[i] = STORE(d * u * sigmoid * (1.0f + g * (1.0f - sigmoid)));
            din[i + width] = STORE(d * g * sigmoid);
        }
    }
}

/* Rows of scores become probabilities of the positions up to `first` + their own; the rest 0. In place.
   scores: (count, rows, columns). */
void NAME(causal_softmax)(T *restrict scores, long count, long rows, long columns, long first, float scale) {
    for (long n = 0; n < count; n++)
        for (long r = 0; r < rows; r++, scores += columns) {
            long seen = first + r + 1;
            float largest = -INFINITY, sum = 0.0f, e[seen];
            #pragma omp simd reduction(max : largest)
            for (long i = 0; i < seen; i++) {
                float s = LOAD(scores[i]);
                largest = s > largest ? s : largest;
            }
            #pragma omp simd reduction(+ : sum)
            for (long i = 0; i < seen; i++) sum += e[i] = exp_((LOAD(scores[i]) - largest) * scale);
            float share = 1.0f / sum;
            #pragma omp simd
            for (long i = 0; i < seen; i++) scores[i] = STORE(e[i] * share);
            memset(scores + seen, 0, (columns - seen) * sizeof(T));
        }
}

/* Gradients of probabilities become gradients of scores, in place. */
void NAME(causal_softmax_backward)(T *restrict d, const T *restrict p, long count, long rows, long columns, long first, float scale) {
    for (long n = 0; n < count; n++)
        for (long r = 0; r < rows; r++, d += columns, p += columns) {
            long seen = first + r + 1;
            float dot = 0.0f;
            #pragma omp simd reduction(+ : dot)
            for (long i = 0; i < seen; i++) dot += LOAD(d[i]) * LOAD(p[i]);
            #pragma omp simd
            for (long i = 0; i < seen; i++) d[i] = STORE((LOAD(d[i]) - dot) * LOAD(p[i]) * scale);
            memset(d + seen, 0, (columns - seen) * sizeof(T));
        }
}

/* Returns the sum of -ln p(target); logits become p - 1[target], the gradient of that sum. Rows whose target is
   negative (padding) count nothing and have no gradient. */
double NAME(cross_entropy)(T *restrict logits, const int64_t *restrict targets, long rows, long width) {
    double loss = 0.0;
    for (long r = 0; r < rows; r++, logits += width) {
        if (targets[r] < 0) {
            memset(logits, 0, width * sizeof(T));
            continue;
        }
        float largest = -INFINITY, sum = 0.0f, target = LOAD(logits[targets[r]]);
        #pragma omp simd reduction(max : largest)
        for (long i = 0; i < width; i++) {
            float l = LOAD(logits[i]);
            largest = l > largest ? l : largest;
        }
        #pragma omp simd reduction(+ : sum)
        for (long i = 0; i < width; i++) sum += exp_(LOAD(logits[i]) - largest);
        float share = 1.0f / sum;
        #pragma omp simd
        for (long i = 0; i < width; i++) logits[i] = STORE(exp_(LOAD(logits[i]) - largest) * share);
        logits[targets[r]] = STORE(exp_(target - largest) * share - 1.0f);
        loss += (double)(logf(sum) + largest - target);
    }
    return loss;
}

#endif
