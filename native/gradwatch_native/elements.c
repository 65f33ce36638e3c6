/* Loops over the elements of a stretch of memory. */
#include "kernels.h"

#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

#define BLOCK 2048 /* elements whose squares are summed in their own precision */
#define LANES 128 /* sums side by side: no addition waits for the one before it */

#define SMALL 1e-27 /* sums of a block below this are made in float64, ... */
#define LEAST 1e-35 /* ... and below this of squares as float32 holds them */
#define GRID (3 * 0x1p-98) /* what is added to it keeps multiples of 2^-149, float32's least number */

CLONES static float sum_squares_f32(const float *x, int64_t n) {
    float sums[LANES] = {0}, total = 0;
    int64_t at = 0;
    for (; at + LANES <= n; at += LANES) {
#pragma omp simd
        for (int lane = 0; lane < LANES; ++lane) sums[lane] += x[at + lane] * x[at + lane];
    }
    for (; at < n; ++at) total += x[at] * x[at];
#pragma omp simd reduction(+ : total)
    for (int lane = 0; lane < LANES; ++lane) total += sums[lane];
    return total;
}

CLONES static double sum_squares_f32_wide(const float *x, int64_t n) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += (double)x[i] * (double)x[i];
    return total;
}

CLONES static double sum_rounded_squares(const float *x, int64_t n) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += ((double)x[i] * (double)x[i] + GRID) - GRID;
    return total;
}

/* Subnormal numbers cost a processor of this kind twenty times as much; until it is told otherwise,
 * it takes them for 0. What it was told before is the answer. */
#ifdef __SSE__
static unsigned int flush_subnormals(void) {
    unsigned int before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
static void keep_subnormals(unsigned int before) { _mm_setcsr(before); }
#else
static unsigned int flush_subnormals(void) { return 0; }
static void keep_subnormals(unsigned int before) { (void)before; }
#endif

/* The smallest numbers vanish as in torch's float32, so that both ways of reading agree. */
static double sum_block(const float *x, int64_t n) {
    unsigned int before = flush_subnormals();
    double total = sum_squares_f32(x, n);
    keep_subnormals(before);
    if (total < SMALL) total = sum_squares_f32_wide(x, n);
    return total > 0 && total < LEAST ? sum_rounded_squares(x, n) : total;
}

CLONES static double sum_squares_f64(const double *x, int64_t n) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; ++i) total += x[i] * x[i];
    return total;
}

CLONES static void widen_bf16(const uint16_t *x, int64_t n, float *wide) {
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(wide + i, &bits, sizeof bits);
    }
}

CLONES static int64_t count_nonzero_f32(const float *x, int64_t n) {
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; ++i) count += x[i] != 0;
    return count;
}

CLONES static int64_t count_nonzero_f64(const double *x, int64_t n) {
    int64_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; ++i) count += x[i] != 0;
    return count;
}

CLONES static int64_t count_nonzero_bf16(const uint16_t *x, int64_t n) {
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < n; ++i) count += (x[i] & 0x7fff) != 0;
    return count;
}

const int ELEMENT_SIZES[] = {4, 8, 2};

double sum_squares(const char *data, int64_t n, Kind kind) {
    float wide[BLOCK];
    double total = 0;
    if (n == 1 && kind == FLOAT32) return sum_squares_f32_wide((const float *)data, 1);
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t count = n - at < BLOCK ? n - at : BLOCK;
        const char *block = data + at * ELEMENT_SIZES[kind];
        if (kind == FLOAT64) {
            total += sum_squares_f64((const double *)block, count);
            continue;
        }
        if (kind == BFLOAT16) widen_bf16((const uint16_t *)block, count, wide);
        total += sum_block(kind == BFLOAT16 ? wide : (const float *)block, count);
    }
    return kind == FLOAT64 || n == 1 ? total : (double)(float)total; /* overflows as float32 does */
}

int64_t count_nonzero(const char *data, int64_t n, Kind kind) {
    if (kind == FLOAT32) return count_nonzero_f32((const float *)data, n);
    if (kind == FLOAT64) return count_nonzero_f64((const double *)data, n);
    return count_nonzero_bf16((const uint16_t *)data, n);
}
