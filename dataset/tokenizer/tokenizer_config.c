/* Fills in what the model takes from the tokenizer, or refuses a configuration that does not fit it. */
#include "dataset/tokenizer/tokenizer_config.h"

#include "base/err.h"

int tokenizer_open_for(struct tokenizer **out, struct config *config) {
    TRY(tokenizer_open(out, config->dataset.tokenizer));
    int code = config_fit_tokenizer(config, tokenizer_vocabulary(*out), tokenizer_bos(*out), tokenizer_eos(*out));
    if (code == 0) return 0;
    tokenizer_close(*out);
    *out = NULL;
    return code;
}
