#ifndef SL_TOOLS_PROGRESS_H
#define SL_TOOLS_PROGRESS_H

/*
 * A progress line on stderr, redrawn at most ten times a second. Tools only; may block where stderr
 * does.
 */

#include "common/base.h"

#define SL_PROGRESS_SAMPLES 64

enum sl_progress_mode { SL_PROGRESS_AUTO, SL_PROGRESS_ALWAYS, SL_PROGRESS_NEVER };

struct sl_progress_sample {
    int64_t at_ns;
    uint64_t done;
};

struct sl_progress {
    bool is_on;
    bool is_drawn;    /* the line on the screen is ours */
    const char *what; /* "submitting", "answers"; borrowed */
    int64_t next_ns;
    uint64_t done;
    uint64_t total; /* 0: unknown */
    uint64_t failed;
    uint64_t tokens;
    double share; /* 0..1 of the way; < 0: from done and total */
    struct sl_progress_sample samples[SL_PROGRESS_SAMPLES]; /* of the last seconds, for the rate */
    size_t sample_count;
};

/* AUTO: on when stderr is a terminal. */
void sl_progress_init(struct sl_progress *progress, enum sl_progress_mode mode);
MUST_CHECK bool sl_progress_mode_parse(const char *text, enum sl_progress_mode *mode);
/* A new part of the work: numbers start from 0. */
void sl_progress_begin(struct sl_progress *progress, const char *what, uint64_t total);
/* Redraws if it is time; the caller has set the numbers. */
void sl_progress_draw(struct sl_progress *progress);
/* Draws the last state and ends the line; nothing where nothing was drawn. */
void sl_progress_end(struct sl_progress *progress);
/* Clears the line so that a message can be printed. */
void sl_progress_clear(struct sl_progress *progress);

/* "12.3k", "4.5M": at most 6 bytes and NUL for anything below 10^15. */
void sl_progress_format_count(uint64_t count, char text[16]);
/* A bar of `width` cells, "#####.....", NUL-terminated: needs width + 1 bytes. */
void sl_progress_format_bar(double share, size_t width, char *text);

#endif
