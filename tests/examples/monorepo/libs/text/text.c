#include "text.h"

static int blank(char c) { return c == ' ' || c == '\t' || c == '\n'; }

int words(const char *text) {
    int count = 0, inside = 0;
    for (; *text; text++) {
        if (!blank(*text) && !inside) count++;
        inside = !blank(*text);
    }
    return count;
}

void capitalise(char *text) {
    if (*text >= 'a' && *text <= 'z') *text += 'A' - 'a';
}
