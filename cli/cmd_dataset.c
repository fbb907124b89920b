/* `millrace dataset`: making datasets, looking into them, checking them; a file for each command or two (cli/dataset_*.c). */
#include "cli/commands.h"
#include "cli/dataset_commands.h"

int cmd_dataset(int argc, char **argv) {
    static const struct command commands[] = {
        {"build", "make what a pipeline.yaml describes, without training", cmd_dataset_build},
        {"info", "counts, sources, packing, digest", cmd_dataset_info},
        {"inspect", "what was left out, and why", cmd_dataset_inspect},
        {"cat", "print a document or a sequence", cmd_dataset_cat},
        {"trace", "where the tokens of a sequence came from", cmd_dataset_trace},
        {"verify", "check every byte", cmd_dataset_verify},
        {"export", "tokens to nanoGPT's, llm.c's or numpy's files", cmd_dataset_export},
        {"import", "a dataset from such files", cmd_dataset_import},
    };
    return commands_run("dataset", "Makes datasets, looks into them, checks them, and trades them with other programs.", commands,
                        sizeof commands / sizeof *commands, argc, argv);
}
