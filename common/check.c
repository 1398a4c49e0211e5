/*
 * The end of a process that found itself inconsistent.
 *
 * Runs in any process and any thread. Never allocates, never returns, never cleans up: what is on
 * disk is the truth and the next start reads it. Survives the crash: the last words in shared
 * memory.
 */
#include "common/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *last_words;
static size_t last_words_size;

void sl_check_set_last_words(char *buffer, size_t size)
{
    last_words_size = size;
    last_words = buffer;
}

void sl_check_fail(const char *condition, const char *file, int line, const char *func)
{
    char text[512];
    int len =
        snprintf(text, sizeof(text), "level=error event=assertion_failed at=%s:%d in=%s: %s\n",
                 file, line, func, condition);

    if (len > 0) {
        size_t bytes = SL_MIN((size_t)len, sizeof(text) - 1);
        if (last_words != NULL && last_words_size > 0) {
            size_t kept = SL_MIN(bytes, last_words_size - 1);
            memcpy(last_words, text, kept);
            last_words[kept] = '\0';
        }
        ssize_t ignored = write(STDERR_FILENO, text, bytes);
        (void)ignored;
    }
    abort();
}
