#include <stdio.h>
#include <string.h>

#include "text.h"

int main(int count, char **arguments) {
    char whom[1024] = "";
    char hello[] = "hello";
    for (int n = 1; n < count; n++) {
        if (strlen(whom) + strlen(arguments[n]) + 2 > sizeof whom) return 1;
        if (n > 1) strcat(whom, " ");
        strcat(whom, arguments[n]);
    }
    capitalise(hello);
    printf("%s, %s (%d words)\n", hello, whom, words(whom));
    return 0;
}
