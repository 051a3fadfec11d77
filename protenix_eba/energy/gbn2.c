/* GBn2 implicit solvent with the ACE surface term: energy and gradient, all pairs.
 *
 * The same expressions as openmm.app.internal.customgbforces.GBSAGBn2Force (Nguyen, Roe and
 * Simmerling, JCTC 2013; neck term of Mongan et al., JCTC 2007), in double precision.
 * Lengths nm, energies kJ/mol. The inner loops run over j without branches that a compiler could
 * not turn into masks, so that they vectorise; one call uses one thread and is deterministic. */
#include <math.h>

#define OFFSET 0.0195141
#define NECK_SCALE 0.826836
#define NECK_CUT 0.68
#define COULOMB 138.935485
#define SURFACE 28.3919551
#define PROBE 0.14

/* The Coulomb integral of atom j's sphere as seen from atom i, and its derivative by r. */
static inline double integral(double r, double or_i, double sr_j, double *slope) {
    double u = r + sr_j, d = fabs(r - sr_j);
    double l = or_i > d ? or_i : d;
    double dl = d > or_i ? (r > sr_j ? 1.0 : -1.0) : 0.0;
    double iu = 1.0 / u, il = 1.0 / l, ir = 1.0 / r, lg = log(l * iu);
    double gap = iu * iu - il * il, arm = r - sr_j * sr_j * ir;
    double value = 0.5 * (il - iu + 0.25 * arm * gap + 0.5 * lg * ir);
    double ds = 0.5 * (-dl * il * il + iu * iu + 0.25 * (1.0 + sr_j * sr_j * ir * ir) * gap
                       + 0.5 * arm * (dl * il * il * il - iu * iu * iu)
                       + 0.5 * ((dl * il - iu) * ir - lg * ir * ir));
    double inside = u > or_i ? 1.0 : 0.0;
    *slope = inside * ds;
    return inside * value;
}

/* The neck correction between two atoms, and its derivative by r. */
static inline double neck(double r, double radii, double d0, double m0, double *slope) {
    double d = r - d0, d2 = d * d, d4 = d2 * d2;
    double w = 1.0 / (1.0 + 100.0 * d2 + 0.3e6 * d4 * d2);
    double inside = radii + NECK_CUT > r ? NECK_SCALE * m0 : 0.0;
    *slope = -inside * w * w * (200.0 * d + 1.8e6 * d4 * d);
    return inside * w;
}

/* param[p * n + i], p: charge, or, sr, alpha, beta, gamma. type[i] indexes the neck tables
 * d0[type_i + type_j * n_types] and m0. work: 7 n doubles. force: x, y, z, each n. Returns energy. */
double gbn2(int n, const double *xyz, const double *param, const int *type, int n_types,
            const double *d0, const double *m0, double solute, double solvent, double kappa,
            double *restrict work, double *restrict force) {
    const double *q = param, *orad = param + n, *sr = param + 2 * n;
    const double *alpha = param + 3 * n, *beta = param + 4 * n, *gamma = param + 5 * n;
    double *restrict x = work, *restrict y = work + n, *restrict z = work + 2 * n;
    double *restrict born = work + 3 * n, *restrict chain = work + 4 * n;
    double *restrict row_d0 = work + 5 * n, *restrict row_m0 = work + 6 * n;
    double *restrict fx = force, *restrict fy = force + n, *restrict fz = force + 2 * n;
    double energy = 0.0, es = 1.0 / solute, ew = 1.0 / solvent;
    for (int i = 0; i < n; i++) {
        x[i] = xyz[3 * i]; y[i] = xyz[3 * i + 1]; z[i] = xyz[3 * i + 2];
        fx[i] = fy[i] = fz[i] = 0.0;
    }
    /* 1: integrals, Born radii and their derivative by the integral (left in chain). */
    for (int i = 0; i < n; i++) {
        double sum = 0.0, slope;
        for (int j = 0; j < n; j++) {
            row_d0[j] = d0[type[i] + type[j] * n_types];
            row_m0[j] = m0[type[i] + type[j] * n_types];
        }
        for (int part = 0; part < 2; part++)
            for (int j = part ? i + 1 : 0, end = part ? n : i; j < end; j++) {
                double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
                double r = sqrt(dx * dx + dy * dy + dz * dz);
                sum += integral(r, orad[i], sr[j], &slope)
                     + neck(r, orad[i] + orad[j] + 2 * OFFSET, row_d0[j], row_m0[j], &slope);
            }
        double p = sum * orad[i], radius = orad[i] + OFFSET;
        double th = tanh(alpha[i] * p - beta[i] * p * p + gamma[i] * p * p * p);
        born[i] = 1.0 / (1.0 / orad[i] - th / radius);
        chain[i] = born[i] * born[i] * (1.0 - th * th) / radius * orad[i]
                 * (alpha[i] - 2.0 * beta[i] * p + 3.0 * gamma[i] * p * p);
    }
    /* 2: energies; the memory of row_d0 collects dE/dB until chain has taken it. */
    double *restrict by_born = row_d0;
    for (int i = 0; i < n; i++) {
        double radius = orad[i] + OFFSET, b = born[i], ratio = radius / b;
        double damp = exp(-kappa * b) * ew, pre = -0.5 * COULOMB * q[i] * q[i];
        double surface = SURFACE * (radius + PROBE) * (radius + PROBE) * pow(ratio, 6);
        energy += pre * (es - damp) / b + surface;
        by_born[i] = pre * (kappa * damp - (es - damp) / b) / b - 6.0 * surface / b;
    }
    for (int i = 0; i < n; i++) {
        double ei = 0.0, bi = 0.0, gx = 0.0, gy = 0.0, gz = 0.0;
        for (int j = i + 1; j < n; j++) {
            double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
            double r2 = dx * dx + dy * dy + dz * dz, bb = born[i] * born[j];
            double ex = exp(-0.25 * r2 / bb), f2 = r2 + bb * ex, invf = 1.0 / sqrt(f2);
            double damp = exp(-kappa * f2 * invf) * ew, pre = -COULOMB * q[i] * q[j];
            double e = pre * (es - damp) * invf;
            double by_f2 = 0.5 * invf * (pre * kappa * damp - e) * invf;
            double g = by_f2 * (2.0 - 0.5 * ex);
            double h = by_f2 * ex * (1.0 + 0.25 * r2 / bb);
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
        double gx = 0.0, gy = 0.0, gz = 0.0, ci = chain[i];
        for (int j = 0; j < n; j++) {
            row_d0[j] = d0[type[i] + type[j] * n_types];
            row_m0[j] = m0[type[i] + type[j] * n_types];
        }
        for (int part = 0; part < 2; part++)
            for (int j = part ? i + 1 : 0, end = part ? n : i; j < end; j++) {
                double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
                double r = sqrt(dx * dx + dy * dy + dz * dz), s1, s2;
                integral(r, orad[i], sr[j], &s1);
                neck(r, orad[i] + orad[j] + 2 * OFFSET, row_d0[j], row_m0[j], &s2);
                double g = ci * (s1 + s2) / r;
                gx += g * dx; gy += g * dy; gz += g * dz;
                fx[j] += g * dx; fy[j] += g * dy; fz[j] += g * dz;
            }
        fx[i] -= gx; fy[i] -= gy; fz[i] -= gz;
    }
    return energy;
}
