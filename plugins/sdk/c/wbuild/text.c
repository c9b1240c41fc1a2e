// Texts, lists, and as much JSON as image configs need.

#include <stdlib.h>
#include <string.h>

#include "wbuild.h"

bool wb_equal(wb_text a, wb_text b) { return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0; }

bool wb_starts_with(wb_text text, wb_text prefix) {
    return text.len >= prefix.len && memcmp(text.ptr, prefix.ptr, prefix.len) == 0;
}

static bool blank(uint8_t byte) { return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'; }

wb_text wb_trim(wb_text text) {
    while (text.len && blank(text.ptr[0])) text.ptr++, text.len--;
    while (text.len && blank(text.ptr[text.len - 1])) text.len--;
    return text;
}

wb_text wb_join(wb_texts parts) {
    size_t len = 0;
    for (size_t i = 0; i < parts.len; i++) len += parts.ptr[i].len;
    wb_text out = {malloc(len), 0};
    for (size_t i = 0; i < parts.len; i++) {
        memcpy(out.ptr + out.len, parts.ptr[i].ptr, parts.ptr[i].len);
        out.len += parts.ptr[i].len;
    }
    return out;
}

wb_text wb_cut(wb_text text, char at, wb_text *rest) {
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == (uint8_t)at) {
            *rest = (wb_text){text.ptr + i + 1, text.len - i - 1};
            return (wb_text){text.ptr, i};
        }
    }
    *rest = (wb_text){text.ptr + text.len, 0};
    return text;
}

wb_texts wb_append(wb_texts list, wb_text text) {
    wb_texts out = {malloc((list.len + 1) * sizeof(wb_text)), list.len + 1};
    memcpy(out.ptr, list.ptr, list.len * sizeof(wb_text));
    out.ptr[list.len] = text;
    return out;
}

wb_pairs wb_pair(wb_pairs list, wb_text key, wb_text value) {
    wb_pairs out = {malloc((list.len + 1) * sizeof(*list.ptr)), list.len + 1};
    memcpy(out.ptr, list.ptr, list.len * sizeof(*list.ptr));
    out.ptr[list.len].f0 = key;
    out.ptr[list.len].f1 = value;
    return out;
}

wb_pairs wb_replace(wb_pairs list, wb_text key, wb_text value) {
    wb_pairs out = {0};
    for (size_t i = 0; i < list.len; i++) {
        if (!wb_equal(list.ptr[i].f0, key)) out = wb_pair(out, list.ptr[i].f0, list.ptr[i].f1);
    }
    return wb_pair(out, key, value);
}

// The length of the value that a text begins with, blanks in front of it not counted.
static size_t value_length(wb_text text) {
    size_t depth = 0;
    for (size_t i = 0; i < text.len; i++) {
        switch (text.ptr[i]) {
        case '"':
            for (i++; i < text.len && text.ptr[i] != '"'; i++) {
                if (text.ptr[i] == '\\') i++;
            }
            if (depth == 0) return i < text.len ? i + 1 : text.len;
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (depth == 0) return i;
            if (--depth == 0) return i + 1;
            break;
        case ',':
            if (depth == 0) return i;
            break;
        }
    }
    return text.len;
}

// The next member or item of what is inside of brackets; false at the end. Items have no key.
static bool next_item(wb_text *rest, bool keyed, wb_text *key, wb_text *value) {
    *rest = wb_trim(*rest);
    if (rest->len && rest->ptr[0] == ',') *rest = wb_trim((wb_text){rest->ptr + 1, rest->len - 1});
    if (!rest->len || rest->ptr[0] == '}' || rest->ptr[0] == ']') return false;
    if (keyed) {
        size_t length = value_length(*rest);
        *key = (wb_text){rest->ptr, length};
        *rest = wb_trim((wb_text){rest->ptr + length, rest->len - length});
        if (!rest->len || rest->ptr[0] != ':') return false;
        *rest = wb_trim((wb_text){rest->ptr + 1, rest->len - 1});
    }
    size_t length = value_length(*rest);
    *value = wb_trim((wb_text){rest->ptr, length});
    *rest = (wb_text){rest->ptr + length, rest->len - length};
    return true;
}

static wb_text inside(wb_text brackets) {
    brackets = wb_trim(brackets);
    return brackets.len ? (wb_text){brackets.ptr + 1, brackets.len - 1} : brackets;
}

wb_text wb_json_get(wb_text object, wb_text key) {
    wb_text rest = inside(object), found, value, wanted = wb_json_string(key);
    while (next_item(&rest, true, &found, &value)) {
        if (wb_equal(found, wanted)) return value;
    }
    return WB("");
}

wb_text wb_json_set(wb_text object, wb_text key, wb_text raw) {
    wb_text rest = inside(object), found, value, wanted = wb_json_string(key);
    wb_text out = WB("{");
    while (next_item(&rest, true, &found, &value)) {
        if (wb_equal(found, wanted)) continue;
        out = wb_join(WB_TEXTS(out, out.len > 1 ? WB(",") : WB(""), found, WB(":"), value));
    }
    if (raw.len) out = wb_join(WB_TEXTS(out, out.len > 1 ? WB(",") : WB(""), wanted, WB(":"), raw));
    return wb_join(WB_TEXTS(out, WB("}")));
}

wb_text wb_json_string(wb_text text) {
    static const char digits[] = "0123456789abcdef";
    wb_text out = {malloc(text.len * 6 + 2), 0};
    out.ptr[out.len++] = '"';
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = text.ptr[i];
        if (byte < 0x20) {
            memcpy(out.ptr + out.len, "\\u00", 4);
            out.ptr[out.len + 4] = digits[byte >> 4];
            out.ptr[out.len + 5] = digits[byte & 15];
            out.len += 6;
            continue;
        }
        if (byte == '"' || byte == '\\') out.ptr[out.len++] = '\\';
        out.ptr[out.len++] = byte;
    }
    out.ptr[out.len++] = '"';
    return out;
}

wb_text wb_json_strings(wb_texts texts) {
    wb_text out = WB("[");
    for (size_t i = 0; i < texts.len; i++) {
        out = wb_join(WB_TEXTS(out, i ? WB(",") : WB(""), wb_json_string(texts.ptr[i])));
    }
    return wb_join(WB_TEXTS(out, WB("]")));
}

static uint32_t hex(const uint8_t *digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
        uint8_t digit = digits[i];
        value = value << 4 | (uint32_t)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
    }
    return value;
}

static wb_text unquoted(wb_text raw) {
    wb_text out = {malloc(raw.len + 1), 0};
    for (size_t i = 1; i + 1 < raw.len; i++) {
        if (raw.ptr[i] != '\\') {
            out.ptr[out.len++] = raw.ptr[i];
            continue;
        }
        uint8_t escape = raw.ptr[++i];
        if (escape != 'u' || i + 5 >= raw.len) {
            const char *from = "bfnrt", *to = "\b\f\n\r\t";
            for (size_t at = 0; at < 5; at++) {
                if (escape == (uint8_t)from[at]) escape = (uint8_t)to[at];
            }
            out.ptr[out.len++] = escape;
            continue;
        }
        uint32_t code = hex(raw.ptr + i + 1);
        i += 4;
        if (code >= 0xd800 && code < 0xdc00 && i + 7 < raw.len && raw.ptr[i + 1] == '\\') {
            code = 0x10000 + ((code - 0xd800) << 10) + (hex(raw.ptr + i + 3) - 0xdc00);
            i += 6;
        }
        // An escape is at least as long as what it stands for.
        if (code < 0x80) {
            out.ptr[out.len++] = (uint8_t)code;
        } else if (code < 0x800) {
            out.ptr[out.len++] = (uint8_t)(0xc0 | code >> 6);
            out.ptr[out.len++] = (uint8_t)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            out.ptr[out.len++] = (uint8_t)(0xe0 | code >> 12);
            out.ptr[out.len++] = (uint8_t)(0x80 | (code >> 6 & 63));
            out.ptr[out.len++] = (uint8_t)(0x80 | (code & 63));
        } else {
            out.ptr[out.len++] = (uint8_t)(0xf0 | (code >> 18 & 7));
            out.ptr[out.len++] = (uint8_t)(0x80 | (code >> 12 & 63));
            out.ptr[out.len++] = (uint8_t)(0x80 | (code >> 6 & 63));
            out.ptr[out.len++] = (uint8_t)(0x80 | (code & 63));
        }
    }
    return out;
}

wb_texts wb_json_texts(wb_text array) {
    wb_text rest = inside(array), key, value;
    wb_texts out = {0};
    while (next_item(&rest, false, &key, &value)) {
        if (value.len >= 2 && value.ptr[0] == '"') out = wb_append(out, unquoted(value));
    }
    return out;
}
