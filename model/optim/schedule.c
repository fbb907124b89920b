/* Learning rates as transformers' schedulers of the same names give them (transformers/optimization.py): after warm-up a function of the
 * progress through the run, or through its end. */
#include <math.h>

#include "model/kernels/fmath.h"
#include "model/optim/optimizer.h"

#define PI 3.14159265358979323846

enum { INVERSE_SQRT_STEPS = 10000, DECAY_SHARE = 10 };

static double larger(double a, double b) { return a > b ? a : b; }

/* From 1 down to 0 along half a wave. */
static double half_wave(double progress) { return progress >= 1.0 ? 0.0 : larger(0.0, 0.5 * (1.0 + fmath_cos(PI * progress))); }

static double raised(double factor, double least) { return factor * (1.0 - least) + least; }

static double remaining_power(double progress, double power) {
    double rest = 1.0 - progress;
    if (power == 1.0 || rest >= 1.0) return larger(0.0, rest);
    return rest <= 0.0 ? 0.0 : fmath_exp(power * fmath_log(rest));
}

/* The last num_decay_steps go down, and warm-up begins at the lowest rate. */
static double stable_decay(const struct config *config, double done, double warmup, double last) {
    double steps = (double)config->training.num_decay_steps, least = config->training.min_lr_rate, progress;
    if (config->training.num_decay_steps == 0) steps = (double)((uint64_t)last / DECAY_SHARE);
    if (done < warmup) return raised(done / larger(1.0, warmup), least);
    if (done < last - steps) return 1.0;
    progress = (done - (last - steps)) / larger(1.0, steps);
    switch (config->training.decay_type) {
    case DECAY_LINEAR: return raised(larger(0.0, 1.0 - progress), least);
    case DECAY_COSINE: return raised(half_wave(progress), least);
    case DECAY_ONE_MINUS_SQRT: return raised(larger(0.0, 1.0 - sqrt(progress)), least);
    }
    return least;
}

static double factor_of(const struct config *config, double done, double warmup, double last) {
    double progress = (done - warmup) / larger(1.0, last - warmup), least = config->training.min_lr_rate, scale;
    if (config->training.lr_scheduler_type == SCHEDULER_WARMUP_STABLE_DECAY) return stable_decay(config, done, warmup, last);
    if (config->training.lr_scheduler_type == SCHEDULER_CONSTANT) return 1.0; /* the one that has no warm-up */
    if (done < warmup) return done / larger(1.0, warmup);
    switch (config->training.lr_scheduler_type) {
    case SCHEDULER_COSINE: return half_wave(progress);
    case SCHEDULER_LINEAR: return larger(0.0, (last - done) / larger(1.0, last - warmup));
    case SCHEDULER_COSINE_WITH_MIN_LR: return raised(half_wave(progress), least);
    case SCHEDULER_POLYNOMIAL: return raised(remaining_power(progress, config->training.power), least);
    case SCHEDULER_INVERSE_SQRT:
        scale = warmup > 0 ? warmup : INVERSE_SQRT_STEPS;
        return 1.0 / sqrt((done + scale - warmup) / scale);
    case SCHEDULER_CONSTANT:
    case SCHEDULER_CONSTANT_WITH_WARMUP:
    case SCHEDULER_WARMUP_STABLE_DECAY: break;
    }
    return 1.0;
}

double learning_rate(const struct config *config, uint64_t step, uint64_t max_steps) {
    double done = step > 0 ? (double)(step - 1) : 0.0; /* LambdaLR: the optimizer's t-th step runs at lambda(t - 1) */
    return config->training.learning_rate * factor_of(config, done, (double)config->training.warmup_steps, (double)max_steps);
}
