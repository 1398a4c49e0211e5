/*
 * RFC 3339 times of input lines.
 *
 * Pure: reads no clock and no time zone database; an offset from UTC stands in the text itself.
 * Strict: a date that is not in the calendar, an hour 24, a missing offset or a trailing byte is no
 * time. A leap second (:60) counts as the second after it. Fractions beyond milliseconds are cut.
 * Runs in the tools; keeps no state; reports by returning false.
 */
#include "tools/line.h"

#define DAYS_PER_ERA 146097 /* 400 years */
#define EPOCH_SHIFT 719468  /* days from 0000-03-01 to 1970-01-01 */

/* Takes `digits` decimal digits in min..max and moves the text on. */
static bool take_number(const char **text, int digits, int min, int max, int *out)
{
    int value = 0;

    for (int i = 0; i < digits; i++) {
        char c = (*text)[i];
        if (c < '0' || c > '9') {
            return false;
        }
        value = value * 10 + (c - '0');
    }
    *text += digits;
    *out = value;
    return value >= min && value <= max;
}

static bool take_char(const char **text, char lower, char upper)
{
    if (**text != lower && **text != upper) {
        return false;
    }
    (*text)++;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* Days since 1970 of a date of the Gregorian calendar; years begin in March so that the leap day
 * comes last. */
static int64_t days_of(int year, int month, int day)
{
    int64_t shifted_year = month <= 2 ? year - 1 : year;
    int64_t era = shifted_year / 400;
    int64_t year_of_era = shifted_year - era * 400;
    int64_t month_from_march = (month + 9) % 12;
    int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * DAYS_PER_ERA + day_of_era - EPOCH_SHIFT;
}

static bool take_date(const char **text, int64_t *days)
{
    int year;
    int month;
    int day;

    if (!take_number(text, 4, 1970, 9999, &year) || !take_char(text, '-', '-') ||
        !take_number(text, 2, 1, 12, &month) || !take_char(text, '-', '-') ||
        !take_number(text, 2, 1, days_in_month(year, month), &day)) {
        return false;
    }
    *days = days_of(year, month, day);
    return true;
}

static bool take_clock(const char **text, int64_t *seconds)
{
    int hour;
    int minute;
    int second;

    if (!take_number(text, 2, 0, 23, &hour) || !take_char(text, ':', ':') ||
        !take_number(text, 2, 0, 59, &minute) || !take_char(text, ':', ':') ||
        !take_number(text, 2, 0, 60, &second)) {
        return false;
    }
    *seconds = hour * 3600 + minute * 60 + second;
    return true;
}

/* An optional fraction of a second. */
static bool take_fraction(const char **text, int64_t *ms)
{
    int64_t unit = 100;

    *ms = 0;
    if (**text != '.') {
        return true;
    }
    (*text)++;
    if (**text < '0' || **text > '9') {
        return false;
    }
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        *ms += (**text - '0') * unit;
        unit /= 10;
    }
    return true;
}

static bool take_offset(const char **text, int64_t *seconds)
{
    int hours;
    int minutes;
    char sign = **text;

    *seconds = 0;
    if (take_char(text, 'Z', 'z')) {
        return true;
    }
    if (!take_char(text, '+', '-') || !take_number(text, 2, 0, 23, &hours) ||
        !take_char(text, ':', ':') || !take_number(text, 2, 0, 59, &minutes)) {
        return false;
    }
    *seconds = (int64_t)(sign == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return true;
}

static bool take_separator(const char **text)
{
    return take_char(text, 'T', 't') || take_char(text, ' ', ' ');
}

bool sl_line_parse_time(const char *text, int64_t *wall_ms)
{
    int64_t days;
    int64_t seconds;
    int64_t ms;
    int64_t offset_s;

    if (!take_date(&text, &days) || !take_separator(&text) || !take_clock(&text, &seconds) ||
        !take_fraction(&text, &ms) || !take_offset(&text, &offset_s) || *text != '\0') {
        return false;
    }
    int64_t result = ((days * 86400) + seconds - offset_s) * 1000 + ms;
    if (result <= 0) {
        return false;
    }
    *wall_ms = result;
    return true;
}
