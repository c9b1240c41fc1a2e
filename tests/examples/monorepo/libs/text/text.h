/* Words of texts. */

/* The number of words, which are what blanks separate. */
int words(const char *text);

/* Makes the first letter of a text large. */
void capitalise(char *text);
