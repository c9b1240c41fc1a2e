#include <stdio.h>
#include <string.h>

#include "text.h"

static int failed;

static void check(const char *what, int holds) {
    printf("%s %s\n", holds ? "ok" : "failed", what);
    failed |= !holds;
}

int main(void) {
    char text[] = "some words";
    check("words are counted", words(" two  words\n") == 2);
    check("nothing has no words", words("") == 0);
    capitalise(text);
    check("the first letter is large", strcmp(text, "Some words") == 0);
    return failed;
}
