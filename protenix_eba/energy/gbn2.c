/* GBn2 implicit solvent with the ACE surface term: energy and gradient, all pairs.
 *
 * The same expressions as openmm.app.internal.customgbforces.GBSAGBn2Force (Nguyen, Roe and
 * Simmerling, JCTC 2013; neck term of Mongan et al., JCTC 2007), in single precision as on OpenMM's
 * own CPU and CUDA platforms. Lengths nm, energies kJ/mol. The inner loops run over j without
 * branches that a compiler could not turn into masks, so that they vectorise (ivdep: the arrays do
 * not overlap); one call uses one thread and is deterministic. */
#include <math.h>

#define OFFSET 0.0195141f
#define NECK_SCALE 0.826836f
#define NECK_CUT 0.68f
#define COULOMB 138.935485f
#define SURFACE 28.3919551f
#define PROBE 0.14f
/* exp(-60) is nothing beside 1, and no denormal number, which would be slow. */
#define FARTHEST 60.0f

/* The Coulomb integral of atom j's sphere as seen from atom i, and its derivative by r; ir is 1/r. */
static inline float integral(float r, float ir, float or_i, float sr_j, float *slope) {
    float u = r + sr_j, d = fabsf(r - sr_j);
    float l = or_i > d ? or_i : d;
    float dl = d > or_i ? (r > sr_j ? 1.0f : -1.0f) : 0.0f;
    float inverse = 1.0f / (u * l), iu = l * inverse, il = u * inverse, lg = logf(l * iu);
    float gap = iu * iu - il * il, arm = r - sr_j * sr_j * ir;
    float value = 0.5f * (il - iu + 0.25f * arm * gap + 0.5f * lg * ir);
    float ds = 0.5f * (-dl * il * il + iu * iu + 0.25f * (1.0f + sr_j * sr_j * ir * ir) * gap
                       + 0.5f * arm * (dl * il * il * il - iu * iu * iu)
                       + 0.5f * ((dl * il - iu) * ir - lg * ir * ir));
    float inside = u > or_i ? 1.0f : 0.0f;
    *slope = inside * ds;
    return inside * value;
}

/* The neck correction between two atoms, and its derivative by r. */
static inline float neck(float r, float radii, float d0, float m0, float *slope) {
    float d = r - d0, d2 = d * d, d4 = d2 * d2;
    float w = 1.0f / (1.0f + 100.0f * d2 + 0.3e6f * d4 * d2);
    float inside = radii + NECK_CUT > r ? NECK_SCALE * m0 : 0.0f;
    *slope = -inside * w * w * (200.0f * d + 1.8e6f * d4 * d);
    return inside * w;
}

/* param[p * n + i], p: charge, or, sr, alpha, beta, gamma. type[i] indexes the neck tables
 * d0[type_i + type_j * n_types] and m0. work: 11 n floats. force: x, y, z, each n. Returns the
 * energy. */
double gbn2(int n, const double *xyz, const float *param, const int *type, int n_types,
            const float *d0, const float *m0, float solute, float solvent, float kappa,
            float *restrict work, float *restrict force) {
    const float *q = param, *orad = param + n, *sr = param + 2 * n;
    const float *alpha = param + 3 * n, *beta = param + 4 * n, *gamma = param + 5 * n;
    float *restrict x = work, *restrict y = work + n, *restrict z = work + 2 * n;
    float *restrict born = work + 3 * n, *restrict chain = work + 4 * n;
    float *restrict sums = work + 5 * n, *restrict by_born = work + 6 * n;
    float *restrict d0_ij = work + 7 * n, *restrict m0_ij = work + 8 * n;
    float *restrict d0_ji = work + 9 * n, *restrict m0_ji = work + 10 * n;
    float *restrict fx = force, *restrict fy = force + n, *restrict fz = force + 2 * n;
    double energy = 0.0, centre[3] = {0.0, 0.0, 0.0};
    float es = 1.0f / solute, ew = 1.0f / solvent;
    for (int i = 0; i < 3 * n; i++) centre[i % 3] += xyz[i] / n;
    for (int i = 0; i < n; i++) {
        x[i] = (float)(xyz[3 * i] - centre[0]);
        y[i] = (float)(xyz[3 * i + 1] - centre[1]);
        z[i] = (float)(xyz[3 * i + 2] - centre[2]);
        fx[i] = fy[i] = fz[i] = 0.0f;
    }
    /* 1: integrals, Born radii and their derivative by the integral (left in chain). */
    for (int i = 0; i < n; i++) sums[i] = 0.0f;
    for (int i = 0; i < n; i++) {
        float sum = 0.0f, slope;
        for (int j = i + 1; j < n; j++) {
            int ij = type[i] + type[j] * n_types, ji = type[j] + type[i] * n_types;
            d0_ij[j] = d0[ij]; m0_ij[j] = m0[ij]; d0_ji[j] = d0[ji]; m0_ji[j] = m0[ji];
        }
#pragma GCC ivdep
        for (int j = i + 1; j < n; j++) {
            float dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
            float r = sqrtf(dx * dx + dy * dy + dz * dz), ir = 1.0f / r;
            float radii = orad[i] + orad[j] + 2 * OFFSET;
            sum += integral(r, ir, orad[i], sr[j], &slope)
                 + neck(r, radii, d0_ij[j], m0_ij[j], &slope);
            sums[j] += integral(r, ir, orad[j], sr[i], &slope)
                     + neck(r, radii, d0_ji[j], m0_ji[j], &slope);
        }
        sums[i] += sum;
    }
    for (int i = 0; i < n; i++) {
        float p = sums[i] * orad[i], radius = orad[i] + OFFSET;
        float th = tanhf(alpha[i] * p - beta[i] * p * p + gamma[i] * p * p * p);
        born[i] = 1.0f / (1.0f / orad[i] - th / radius);
        chain[i] = born[i] * born[i] * (1.0f - th * th) / radius * orad[i]
                 * (alpha[i] - 2.0f * beta[i] * p + 3.0f * gamma[i] * p * p);
    }
    /* 2: energies, and dE/dB in by_born. */
    for (int i = 0; i < n; i++) {
        float radius = orad[i] + OFFSET, b = born[i], ratio = radius / b;
        float damp = expf(-kappa * b) * ew, pre = -0.5f * COULOMB * q[i] * q[i];
        float surface = SURFACE * (radius + PROBE) * (radius + PROBE) * powf(ratio, 6.0f);
        energy += pre * (es - damp) / b + surface;
        by_born[i] = pre * (kappa * damp - (es - damp) / b) / b - 6.0f * surface / b;
    }
    for (int i = 0; i < n; i++) {
        float ei = 0.0f, bi = 0.0f, gx = 0.0f, gy = 0.0f, gz = 0.0f;
#pragma GCC ivdep
        for (int j = i + 1; j < n; j++) {
            float dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
            float r2 = dx * dx + dy * dy + dz * dz, bb = born[i] * born[j], far = 0.25f * r2 / bb;
            float ex = expf(far < FARTHEST ? -far : -FARTHEST);
            float f2 = r2 + bb * ex, invf = 1.0f / sqrtf(f2);
            float damp = expf(-kappa * f2 * invf) * ew, pre = -COULOMB * q[i] * q[j];
            float e = pre * (es - damp) * invf;
            float by_f2 = 0.5f * invf * (pre * kappa * damp - e) * invf;
            float g = by_f2 * (2.0f - 0.5f * ex);
            float h = by_f2 * ex * (1.0f + far);
            ei += e; bi += h * born[j]; by_born[j] += h * born[i];
            gx += g * dx; gy += g * dy; gz += g * dz;
            fx[j] += g * dx; fy[j] += g * dy; fz[j] += g * dz;
        }
        energy += ei; by_born[i] += bi;
        fx[i] -= gx; fy[i] -= gy; fz[i] -= gz;
    }
    for (int i = 0; i < n; i++) chain[i] *= by_born[i];
    /* 3: forces through the integrals. */
    for (int i = 0; i < n; i++) {
        float gx = 0.0f, gy = 0.0f, gz = 0.0f, ci = chain[i];
        for (int j = i + 1; j < n; j++) {
            int ij = type[i] + type[j] * n_types, ji = type[j] + type[i] * n_types;
            d0_ij[j] = d0[ij]; m0_ij[j] = m0[ij]; d0_ji[j] = d0[ji]; m0_ji[j] = m0[ji];
        }
#pragma GCC ivdep
        for (int j = i + 1; j < n; j++) {
            float dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j], ij, neck_ij, ji, neck_ji;
            float r = sqrtf(dx * dx + dy * dy + dz * dz), ir = 1.0f / r;
            float radii = orad[i] + orad[j] + 2 * OFFSET;
            integral(r, ir, orad[i], sr[j], &ij);
            integral(r, ir, orad[j], sr[i], &ji);
            neck(r, radii, d0_ij[j], m0_ij[j], &neck_ij);
            neck(r, radii, d0_ji[j], m0_ji[j], &neck_ji);
            float g = (ci * (ij + neck_ij) + chain[j] * (ji + neck_ji)) * ir;
            gx += g * dx; gy += g * dy; gz += g * dz;
            fx[j] += g * dx; fy[j] += g * dy; fz[j] += g * dz;
        }
        fx[i] -= gx; fy[i] -= gy; fz[i] -= gz;
    }
    return energy;
}
