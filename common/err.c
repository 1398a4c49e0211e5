/*
 * Look-ups over common/tbl/errors.def.
 *
 * Pure: reads constant tables, allocates nothing, logs nothing. An unknown number (from a newer
 * peer or a damaged record) is answered as "internal", never as a crash.
 */
#include "common/err.h"

#include "common/check.h"

struct row {
    enum sl_err err;
    const char *code;
    enum sl_err_class class;
    int exit_status;
    const char *meaning;
    const char *advice;
};

static const struct row rows[] = {
#define X(name, number, code, class, exit_status, meaning, advice)                                 \
    {SL_ERR_##name, code, SL_CLASS_##class, exit_status, meaning, advice},
#include "common/tbl/errors.def"
#undef X
};

static const struct row *find_row(uint32_t number)
{
    for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
        if ((uint32_t)rows[i].err == number) {
            return &rows[i];
        }
    }
    return NULL;
}

static const struct row *get_row(enum sl_err err)
{
    const struct row *row = find_row((uint32_t)err);

    if (row == NULL) {
        row = find_row(SL_ERR_INTERNAL);
    }
    SL_ASSERT(row != NULL);
    return row;
}

const char *sl_err_code(enum sl_err err)
{
    return get_row(err)->code;
}

const char *sl_err_meaning(enum sl_err err)
{
    return get_row(err)->meaning;
}

const char *sl_err_advice(enum sl_err err)
{
    return get_row(err)->advice;
}

int sl_err_exit_status(enum sl_err err)
{
    return get_row(err)->exit_status;
}

enum sl_err_class sl_err_class(enum sl_err err)
{
    return get_row(err)->class;
}

bool sl_err_is_known(uint32_t number)
{
    return find_row(number) != NULL;
}

enum sl_err sl_err_at(size_t idx, bool *found)
{
    *found = idx < SL_ARRAY_LEN(rows);
    return *found ? rows[idx].err : SL_ERR_OK;
}
