/* The inner loops of resize.py. They need no library, so the compiled file runs on any Linux. */

#include <stddef.h>
#include <stdint.h>

/* GCC compiles the loops twice and chooses at load time. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { BLOCK = 32 };

typedef float pixel __attribute__((vector_size(16), aligned(4)));

/* Resize `image`, 3 numbers per pixel, rows `stride` bytes apart, from `width` columns.
 *
 * A result row is the sum of `row_taps` rows from row_starts[y] on, times row_weights[y]; then the
 * same happens along its columns. `line` has room for 3 * width + 1 numbers. */
FOR_EACH_PROCESSOR
void resample(const uint8_t *image, ptrdiff_t stride, ptrdiff_t width,
              const int32_t *row_starts, const float *row_weights, ptrdiff_t rows,
              ptrdiff_t row_taps, const int32_t *column_starts, const float *column_weights,
              ptrdiff_t columns, ptrdiff_t column_taps, float *line, float *out)
{
    const ptrdiff_t numbers = 3 * width;

    for (ptrdiff_t y = 0; y < rows; y++) {
        const uint8_t *top = image + row_starts[y] * stride;
        const float *weights = row_weights + y * row_taps;
        ptrdiff_t at = 0;

        for (; at + BLOCK <= numbers; at += BLOCK) {
            float sums[BLOCK];
            for (int i = 0; i < BLOCK; i++)
                sums[i] = 0;
            for (ptrdiff_t tap = 0; tap < row_taps; tap++) {
                const uint8_t *row = top + tap * stride + at;
                for (int i = 0; i < BLOCK; i++)
                    sums[i] += weights[tap] * row[i];
            }
            for (int i = 0; i < BLOCK; i++)
                line[at + i] = sums[i];
        }
        for (; at < numbers; at++) {
            float sum = 0;
            for (ptrdiff_t tap = 0; tap < row_taps; tap++)
                sum += weights[tap] * top[tap * stride + at];
            line[at] = sum;
        }
        for (ptrdiff_t x = 0; x < columns; x++, out += 3) {
            const float *from = line + 3 * (ptrdiff_t)column_starts[x];
            pixel sum = {0, 0, 0, 0};
            for (ptrdiff_t tap = 0; tap < column_taps; tap++)
                sum += column_weights[x * column_taps + tap] * *(const pixel *)(from + 3 * tap);
            out[0] = sum[0];
            out[1] = sum[1];
            out[2] = sum[2];
        }
    }
}
