/*
 * The progress line: bar, count, rate of the last seconds, failures, tokens, time left.
 *
 * Runs in sluice-submit. Draws over its own line with a carriage return, cut to the width of the
 * terminal, at most every 100 ms; the clock is read only when drawing is on. Never writes to
 * stdout. Failures to write are ignored: it is decoration.
 */
#include "tools/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"

#define DRAW_EVERY_NS (100 * SL_NS_PER_MS)
#define LINE_BYTES 256
#define BAR_WIDTH 24

void sl_progress_init(struct sl_progress *progress, enum sl_progress_mode mode)
{
    memset(progress, 0, sizeof(*progress));
    progress->is_on =
        mode == SL_PROGRESS_ALWAYS || (mode == SL_PROGRESS_AUTO && isatty(STDERR_FILENO) == 1);
}

bool sl_progress_mode_parse(const char *text, enum sl_progress_mode *mode)
{
    static const char *const names[] = {"auto", "always", "never"};

    for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *mode = (enum sl_progress_mode)i;
            return true;
        }
    }
    return false;
}

void sl_progress_begin(struct sl_progress *progress, const char *what, uint64_t total)
{
    bool is_on = progress->is_on;
    bool is_drawn = progress->is_drawn;

    memset(progress, 0, sizeof(*progress));
    progress->is_on = is_on;
    progress->is_drawn = is_drawn;
    progress->what = what;
    progress->total = total;
    progress->share = -1;
}

void sl_progress_format_count(uint64_t count, char text[16])
{
    static const char units[] = {'k', 'M', 'G', 'T', 'P', 'E'};
    double value = (double)count;
    size_t unit = 0;

    if (count < 10000) {
        snprintf(text, 16, "%u", (unsigned)count);
        return;
    }
    value /= 1000;
    while (value >= 999.5 && unit + 1 < sizeof(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(text, 16, "%.*f%c", value < 99.95 ? 1 : 0, value, units[unit]);
}

void sl_progress_format_bar(double share, size_t width, char *text)
{
    double bounded = SL_MIN(SL_MAX(share, 0.0), 1.0);
    size_t filled = (size_t)(bounded * (double)width);

    SL_ASSERT(filled <= width);
    memset(text, '#', filled);
    memset(text + filled, '.', width - filled);
    text[width] = '\0';
}

/* Done per second over the samples kept, the newest being now. */
static double note_rate(struct sl_progress *progress, int64_t now_ns)
{
    struct sl_progress_sample *samples = progress->samples;

    if (progress->sample_count == SL_PROGRESS_SAMPLES) {
        memmove(samples, samples + 1, (SL_PROGRESS_SAMPLES - 1) * sizeof(*samples));
        progress->sample_count--;
    }
    samples[progress->sample_count++] =
        (struct sl_progress_sample){.at_ns = now_ns, .done = progress->done};
    int64_t elapsed_ns = now_ns - samples[0].at_ns;
    return elapsed_ns > 0 ? (double)(progress->done - samples[0].done) * 1e9 / (double)elapsed_ns
                          : 0.0;
}

static void format_left(const struct sl_progress *progress, double rate, char text[24])
{
    double left_s = 0;

    if (progress->total == 0 || rate <= 0 || progress->done >= progress->total) {
        snprintf(text, 24, "%s",
                 progress->total > 0 && progress->done < progress->total ? "-:--" : "0:00");
        return;
    }
    left_s = SL_MIN((double)(progress->total - progress->done) / rate, 3599999.0);
    unsigned seconds = (unsigned)(left_s + 0.5);
    if (seconds >= 3600) {
        snprintf(text, 24, "%u:%02u:%02u", seconds / 3600, seconds / 60 % 60, seconds % 60);
    } else {
        snprintf(text, 24, "%u:%02u", seconds / 60, seconds % 60);
    }
}

static double share_of(const struct sl_progress *progress)
{
    if (progress->share >= 0) {
        return progress->share;
    }
    return progress->total == 0 ? 0 : (double)progress->done / (double)progress->total;
}

static size_t terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10) {
        return SL_MIN((size_t)size.ws_col - 1, (size_t)LINE_BYTES - 1);
    }
    return LINE_BYTES - 1;
}

static void draw_now(struct sl_progress *progress, int64_t now_ns)
{
    char line[LINE_BYTES];
    char bar[BAR_WIDTH + 1];
    char left[24];
    char tokens[16];
    char total[24] = "";
    double rate = note_rate(progress, now_ns);

    sl_progress_format_bar(share_of(progress), BAR_WIDTH, bar);
    format_left(progress, rate, left);
    sl_progress_format_count(progress->tokens, tokens);
    if (progress->total > 0) {
        snprintf(total, sizeof(total), "/%llu", (unsigned long long)progress->total);
    }
    snprintf(line, sizeof(line), "%s [%s] %llu%s  %.0f/s  %llu failed  %s tokens  %s left",
             progress->what, bar, (unsigned long long)progress->done, total, rate,
             (unsigned long long)progress->failed, tokens, left);
    fprintf(stderr, "\r%.*s\x1b[K", (int)terminal_width(), line);
    fflush(stderr);
    progress->is_drawn = true;
}

void sl_progress_draw(struct sl_progress *progress)
{
    if (!progress->is_on) {
        return;
    }
    int64_t now_ns = sl_clock_mono_ns();

    if (now_ns >= progress->next_ns) {
        progress->next_ns = now_ns + DRAW_EVERY_NS;
        draw_now(progress, now_ns);
    }
}

void sl_progress_end(struct sl_progress *progress)
{
    if (!progress->is_on) {
        return;
    }
    draw_now(progress, sl_clock_mono_ns());
    fputc('\n', stderr);
    progress->is_drawn = false;
}

void sl_progress_clear(struct sl_progress *progress)
{
    if (progress->is_drawn) {
        fputs("\r\x1b[K", stderr);
        progress->is_drawn = false;
    }
}
