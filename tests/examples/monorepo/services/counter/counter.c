#include <stdio.h>

#include "text.h"

int main(void) {
    char text[65536];
    size_t size = fread(text, 1, sizeof text - 1, stdin);
    text[size] = 0;
    printf("%d\n", words(text));
    return 0;
}
