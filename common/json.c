/*
 * The scanner: one pass of yajl over a text that was checked byte by byte before, picking members.
 *
 * The paths of the picks are a small tree of names, built per scan. yajl calls back for keys and
 * for the begin and end of containers only; strings, numbers and literals have no callback, so yajl
 * neither decodes nor copies them. A key that stands in the tree fixes where its value begins; the
 * end of a container comes from its callback, the end of anything else is found afterwards, in a
 * text known to be valid. yajl's own memory comes from a small block inside the scanner; when more
 * is needed and there is none, the scan is left by longjmp, because yajl does not look for NULL.
 *
 * Never recurses (nor does yajl), never does I/O, never blocks. Any process, one scanner per
 * thread; a crash leaves nothing behind. Errors: SL_ERR_INPUT with the byte and a reason,
 * SL_ERR_NO_MEMORY.
 */
#include "common/json.h"

#include <setjmp.h>
#include <stdlib.h>

#include <yajl/yajl_parse.h>

#include "common/check.h"
#include "common/json_private.h"
#include "common/limits.h"

#define NODES_MAX 128
#define NAME_BYTES_MAX 64
#define NONE (-1)
#define BLOCK_BYTES (16 * SL_KIB) /* yajl: 3 KiB as a rule, more for long keys with escapes */

/* A name on the way to a pick. */
struct node {
    const char *name;
    size_t len;
    size_t start;    /* where its value begins, once seen */
    size_t end;      /* where it ends, for containers */
    int16_t pick;    /* its index in the picks, or NONE */
    int16_t child;   /* first of the names below */
    int16_t sibling; /* next of the names beside */
    bool is_strict;  /* no names below it but those in the tree */
    bool is_seen;
};

/* What yajl asked for beyond the block; freed after the scan. */
struct large {
    struct large *next;
    void *mem;
};

/* In front of each piece of memory, so that realloc knows how much to copy; keeps alignment. */
union piece {
    size_t size;
    max_align_t align;
};

struct sl_json_scanner {
    struct sl_span text;
    struct sl_json_fault *fault;
    yajl_handle parser;
    struct node nodes[NODES_MAX];
    int16_t node_count;
    int16_t pending;                        /* node whose value comes next, or NONE */
    uint32_t depth;                         /* containers open */
    int16_t node_at[SL_JSON_DEPTH_MAX + 1]; /* node of the open container, or NONE */
    jmp_buf no_memory;
    struct large *larges;
    size_t block_used;
    _Alignas(max_align_t) char block[BLOCK_BYTES];
};

/* ---- memory for yajl ------------------------------------------------------------------------- */

static void *take_large(struct sl_json_scanner *scanner, size_t bytes)
{
    struct large *large = malloc(sizeof(*large));
    void *mem = malloc(bytes);

    if (large == NULL || mem == NULL) {
        free(large);
        free(mem);
        longjmp(scanner->no_memory, 1);
    }
    *large = (struct large){.next = scanner->larges, .mem = mem};
    scanner->larges = large;
    return mem;
}

static void *take_memory(void *ctx, size_t size)
{
    struct sl_json_scanner *scanner = ctx;
    size_t bytes;
    union piece *piece;

    if (!sl_add_size(size, sizeof(union piece) * 2, &bytes)) {
        longjmp(scanner->no_memory, 1);
    }
    bytes = sl_round_up(size + sizeof(union piece), sizeof(union piece));
    if (bytes <= sizeof(scanner->block) - scanner->block_used) {
        piece = (union piece *)(void *)(scanner->block + scanner->block_used);
        scanner->block_used += bytes;
    } else {
        piece = take_large(scanner, bytes);
    }
    piece->size = size;
    return piece + 1;
}

/* Everything goes at once, after the scan. */
static void give_memory(void *ctx, void *mem)
{
    (void)ctx;
    (void)mem;
}

static void *resize_memory(void *ctx, void *mem, size_t size)
{
    void *bigger = take_memory(ctx, size);

    if (mem != NULL) {
        const union piece *piece = (const union piece *)mem - 1;
        memcpy(bigger, mem, SL_MIN(piece->size, size));
    }
    return bigger;
}

static void drop_memory(struct sl_json_scanner *scanner)
{
    while (scanner->larges != NULL) {
        struct large *large = scanner->larges;
        scanner->larges = large->next;
        free(large->mem);
        free(large);
    }
    scanner->block_used = 0;
    scanner->parser = NULL;
}

/* ---- the tree of names ----------------------------------------------------------------------- */

static int16_t find_child(const struct sl_json_scanner *scanner, int16_t parent, const char *name,
                          size_t len)
{
    int16_t idx = scanner->nodes[parent].child;

    while (idx != NONE) {
        const struct node *node = &scanner->nodes[idx];
        if (node->len == len && memcmp(node->name, name, len) == 0) {
            return idx;
        }
        idx = node->sibling;
    }
    return NONE;
}

static int16_t add_node(struct sl_json_scanner *scanner, const char *name, size_t len)
{
    SL_ASSERT(scanner->node_count < NODES_MAX);
    int16_t idx = scanner->node_count++;
    scanner->nodes[idx] =
        (struct node){.name = name, .len = len, .pick = NONE, .child = NONE, .sibling = NONE};
    return idx;
}

/* Paths are our own constants: one that does not fit is our mistake. */
static int16_t add_path(struct sl_json_scanner *scanner, const char *path)
{
    int16_t node = 0;

    while (*path != '\0') {
        size_t len = strcspn(path, ".");
        SL_ASSERT(len > 0);
        int16_t child = find_child(scanner, node, path, len);
        if (child == NONE) {
            child = add_node(scanner, path, len);
            scanner->nodes[child].sibling = scanner->nodes[node].child;
            scanner->nodes[node].child = child;
        }
        node = child;
        path += len + (path[len] == '.');
    }
    return node;
}

static void build_tree(struct sl_json_scanner *scanner, struct sl_json_pick *picks,
                       size_t pick_count, const char *const *strict)
{
    scanner->node_count = 0;
    add_node(scanner, "", 0);
    for (size_t i = 0; i < pick_count; i++) {
        int16_t node = add_path(scanner, picks[i].path);
        SL_ASSERT(scanner->nodes[node].pick == NONE);
        scanner->nodes[node].pick = (int16_t)i;
        picks[i].kind = SL_JSON_ABSENT;
        picks[i].raw = sl_span_of("", 0);
    }
    for (size_t i = 0; strict != NULL && strict[i] != NULL; i++) {
        scanner->nodes[add_path(scanner, strict[i])].is_strict = true;
    }
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static size_t position(const struct sl_json_scanner *scanner)
{
    return yajl_get_bytes_consumed(scanner->parser);
}

static int on_start(void *ctx)
{
    struct sl_json_scanner *scanner = ctx;

    if (scanner->depth == SL_JSON_DEPTH_MAX) {
        sl_json_set_fault(scanner->fault, position(scanner) - 1, "nested deeper than %d levels",
                          SL_JSON_DEPTH_MAX);
        return 0;
    }
    scanner->depth++;
    scanner->node_at[scanner->depth] = scanner->pending;
    scanner->pending = NONE;
    return 1;
}

static int on_end(void *ctx)
{
    struct sl_json_scanner *scanner = ctx;
    int16_t node = scanner->node_at[scanner->depth--];

    if (node != NONE) {
        scanner->nodes[node].end = position(scanner);
    }
    scanner->pending = NONE;
    return 1;
}

/* The opening quote of the key that ends at `end`: quotes inside it are escaped. */
static size_t key_start(const struct sl_json_scanner *scanner, size_t end)
{
    size_t at = end - 1;

    do {
        at--;
    } while (at > 0 && (scanner->text.ptr[at] != '"' || scanner->text.ptr[at - 1] == '\\'));
    return at;
}

/* A name of a peer's choice, fit for a message to a person. */
static int refuse_key(struct sl_json_scanner *scanner, const char *what)
{
    size_t end = position(scanner);
    size_t start = key_start(scanner, end);
    size_t len = SL_MIN(end - start, (size_t)NAME_BYTES_MAX);

    while (len > 0 && ((uint8_t)scanner->text.ptr[start + len] & 0xc0) == 0x80) {
        len--; /* not through the middle of a character */
    }
    sl_json_set_fault(scanner->fault, start, "%s member %.*s", what, (int)len,
                      scanner->text.ptr + start);
    return 0;
}

static int on_key(void *ctx, const unsigned char *key, size_t len)
{
    struct sl_json_scanner *scanner = ctx;
    int16_t parent = scanner->node_at[scanner->depth];

    scanner->pending = NONE;
    if (parent == NONE) {
        return 1;
    }
    int16_t idx = find_child(scanner, parent, (const char *)key, len);
    if (idx == NONE) {
        return scanner->nodes[parent].is_strict ? refuse_key(scanner, "unknown") : 1;
    }
    struct node *node = &scanner->nodes[idx];
    if (node->is_seen) {
        return refuse_key(scanner, "duplicate");
    }
    node->is_seen = true;
    /* Behind the colon; without one yajl refuses the text, and the position is never used. */
    size_t colon = sl_json_skip_space(scanner->text, position(scanner));
    node->start = sl_json_skip_space(scanner->text, SL_MIN(colon + 1, scanner->text.len));
    scanner->pending = idx;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_start_map = on_start,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start,
    .yajl_end_array = on_end,
};

/* ---- the pass -------------------------------------------------------------------------------- */

/* yajl's own words, without its line end, at the byte found by ours. */
static void explain(struct sl_json_scanner *scanner)
{
    struct sl_span text = scanner->text;
    const unsigned char *bytes = (const unsigned char *)text.ptr;
    const char *words = (const char *)yajl_get_error(scanner->parser, 0, bytes, text.len);
    size_t offset = sl_json_find_fault(text);

    if (offset == text.len) {
        sl_json_set_fault(scanner->fault, offset, "the text ends too early");
    } else {
        sl_json_set_fault(scanner->fault, offset, "%.*s", (int)strcspn(words, ".\n"), words);
    }
}

static enum sl_err run_yajl(struct sl_json_scanner *scanner)
{
    yajl_alloc_funcs memory = {take_memory, resize_memory, give_memory, scanner};

    scanner->parser = yajl_alloc(&callbacks, &memory, scanner);
    /* UTF-8 was checked, more strictly than yajl does. */
    yajl_config(scanner->parser, yajl_dont_validate_strings, 1);
    yajl_status status =
        yajl_parse(scanner->parser, (const unsigned char *)scanner->text.ptr, scanner->text.len);
    if (status == yajl_status_ok) {
        status = yajl_complete_parse(scanner->parser);
    }
    if (status == yajl_status_error) {
        explain(scanner);
    }
    return status == yajl_status_ok ? SL_OK : SL_ERR_INPUT;
}

/* No local variables: nothing here is lost by the jump. */
static enum sl_err run_guarded(struct sl_json_scanner *scanner)
{
    if (setjmp(scanner->no_memory) != 0) {
        sl_json_set_fault(scanner->fault, 0, "out of memory");
        return SL_ERR_NO_MEMORY;
    }
    return run_yajl(scanner);
}

static bool check_start(struct sl_span text, struct sl_json_fault *fault)
{
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) {
        sl_json_set_fault(fault, 0, "starts with a byte order mark; save it as UTF-8 without one");
        return false;
    }
    if (!sl_json_check_bytes(text, fault)) {
        return false;
    }
    if (sl_json_skip_space(text, 0) == text.len) {
        sl_json_set_fault(fault, text.len, "empty: a JSON value is missing");
        return false;
    }
    return true;
}

static enum sl_json_kind kind_of(char first)
{
    switch (first) {
    case '{':
        return SL_JSON_OBJECT;
    case '[':
        return SL_JSON_ARRAY;
    case '"':
        return SL_JSON_STRING;
    case 't':
    case 'f':
        return SL_JSON_BOOL;
    case 'n':
        return SL_JSON_NULL;
    default:
        return SL_JSON_NUMBER;
    }
}

static size_t scalar_end(struct sl_span text, size_t at)
{
    while (at < text.len && !sl_json_is_space(text.ptr[at]) && text.ptr[at] != ',' &&
           text.ptr[at] != '}' && text.ptr[at] != ']') {
        at++;
    }
    return at;
}

static void fill_pick(struct sl_span text, const struct node *node, struct sl_json_pick *pick)
{
    size_t end = node->end;

    pick->kind = kind_of(text.ptr[node->start]);
    if (pick->kind == SL_JSON_STRING) {
        end = sl_json_string_end(text, node->start);
    } else if (pick->kind != SL_JSON_OBJECT && pick->kind != SL_JSON_ARRAY) {
        end = scalar_end(text, node->start);
    }
    SL_ASSERT(end > node->start && end <= text.len);
    pick->raw = sl_span_of(text.ptr + node->start, end - node->start);
}

static void fill_picks(const struct sl_json_scanner *scanner, struct sl_json_pick *picks)
{
    for (int16_t i = 0; i < scanner->node_count; i++) {
        const struct node *node = &scanner->nodes[i];
        if (node->pick != NONE && node->is_seen) {
            fill_pick(scanner->text, node, &picks[node->pick]);
        }
    }
}

enum sl_err sl_json_scan(struct sl_json_scanner *scanner, struct sl_span text,
                         struct sl_json_pick *picks, size_t pick_count, const char *const *strict,
                         struct sl_json_fault *fault)
{
    SL_ASSERT(pick_count <= SL_JSON_PICKS_MAX);
    build_tree(scanner, picks, pick_count, strict);
    if (!check_start(text, fault)) {
        return SL_ERR_INPUT;
    }
    scanner->text = text;
    scanner->fault = fault;
    scanner->depth = 0;
    scanner->pending = 0;
    scanner->nodes[0].is_seen = true;
    scanner->nodes[0].start = sl_json_skip_space(text, 0);
    enum sl_err err = run_guarded(scanner);
    drop_memory(scanner);
    if (err == SL_OK) {
        fill_picks(scanner, picks);
    }
    return err;
}

struct sl_json_scanner *sl_json_scanner_open(void)
{
    return calloc(1, sizeof(struct sl_json_scanner));
}

void sl_json_scanner_close(struct sl_json_scanner **scanner)
{
    free(*scanner);
    *scanner = NULL;
}
