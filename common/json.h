#ifndef SL_COMMON_JSON_H
#define SL_COMMON_JSON_H

/*
 * The door to the JSON library (yajl): one strict pass over a text that checks it to its end (RFC
 * 8259, valid UTF-8, depth at most SL_JSON_DEPTH_MAX, one value) and picks the members asked for as
 * spans of the text itself. Bodies stay the bytes they are. Plus what is needed to write JSON.
 *
 * Any process; no I/O, never blocks. A scanner is reused from text to text; one per thread.
 */

#include "common/err.h"

#define SL_JSON_DEPTH_MAX 128 /* nesting; tool schemas reach 20, attacks reach 100,000 */
#define SL_JSON_PICKS_MAX 32

enum sl_json_kind {
    SL_JSON_ABSENT,
    SL_JSON_NULL,
    SL_JSON_BOOL,
    SL_JSON_NUMBER,
    SL_JSON_STRING,
    SL_JSON_OBJECT,
    SL_JSON_ARRAY,
};

/* A member to pick: path from the top ("body.model"; "" is the whole value; array elements are
 * never picked). After a scan: its kind and its exact bytes, quotes included for a string. */
struct sl_json_pick {
    const char *path;
    enum sl_json_kind kind;
    struct sl_span raw;
};

struct sl_json_fault {
    size_t offset; /* byte of the text at which it went wrong, from 0 */
    char reason[160];
};

struct sl_json_scanner;
struct sl_json_scanner *sl_json_scanner_open(void); /* NULL: out of memory */
void sl_json_scanner_close(struct sl_json_scanner **scanner);

/* One pass over `text`. `strict` names objects (paths, NULL-terminated list, may be NULL) all of
 * whose members must be among the picks: an unknown member is refused. A picked member, or a member
 * of a strict object, that stands twice is refused. SL_ERR_INPUT with *fault; picks are then not to
 * be used. `picks` may be empty: only checks. */
MUST_CHECK enum sl_err sl_json_scan(struct sl_json_scanner *scanner, struct sl_span text,
                                    struct sl_json_pick *picks, size_t pick_count,
                                    const char *const *strict, struct sl_json_fault *fault);

/* Decodes a string pick (escapes, surrogate pairs) into buf, NUL-terminated; *len without the NUL.
 * SL_ERR_INPUT: no string, lone surrogate; SL_ERR_FULL: longer than size - 1 bytes. */
MUST_CHECK enum sl_err sl_json_get_string(const struct sl_json_pick *pick, char *buf, size_t size,
                                          size_t *len);
/* A whole number in min..max ("5", not "5.0"): SL_ERR_INPUT otherwise. */
MUST_CHECK enum sl_err sl_json_get_int(const struct sl_json_pick *pick, int64_t min, int64_t max,
                                       int64_t *out);
MUST_CHECK enum sl_err sl_json_get_double(const struct sl_json_pick *pick, double *out);

/* A growing text on the heap; `is_failed` once memory ran out (then nothing more is added). */
struct sl_json_text {
    char *buf;
    size_t len;
    size_t size_bytes;
    bool is_failed;
};
void sl_json_text_fini(struct sl_json_text *text);
void sl_json_put_raw(struct sl_json_text *text, struct sl_span bytes);
/* A JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
void sl_json_put_string(struct sl_json_text *text, struct sl_span value);
void sl_json_put_uint(struct sl_json_text *text, uint64_t value);
void sl_json_put_int(struct sl_json_text *text, int64_t value);
/* Shortest of up to 3 decimals ("3.1"), "0" for what is no finite number. */
void sl_json_put_ms(struct sl_json_text *text, double value);
/* Valid JSON without the white space between its tokens, so that it stands on one line. */
void sl_json_put_minified(struct sl_json_text *text, struct sl_span json);

#endif
