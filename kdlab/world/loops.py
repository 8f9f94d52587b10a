"""The inner loops of `kdlab.world.raster`, for numba: one pixel or triangle after the other.

They take NumPy arrays and fill the last one; nothing is checked here.
"""

import numpy as np

DEPTH_STEPS = 2**30  # depth is compared as an integer; the triangle number breaks ties
FLAT = 1e-6  # square pixels: half of it is the area up to which a triangle is not drawn


def rasterise(points, depth, faces, seen):
    one, steps, flat = np.float32(1), np.float32(DEPTH_STEPS - 1), np.float32(FLAT)
    B, height, width = seen.shape
    last_column, last_row = np.float32(width - 1), np.float32(height - 1)
    nearest = np.empty((height, width), np.int32)
    z = np.empty(depth.shape[1], np.float32)
    for image in range(B):
        seen[image] = -1
        nearest[:] = 2**31 - 1
        near, far = np.inf, -np.inf
        for v in range(len(z)):
            near, far = min(near, depth[image, v]), max(far, depth[image, v])
        near = np.float32(near)
        scale = steps / max(np.float32(far) - near, np.float32(1e-12))
        for v in range(len(z)):
            z[v] = (depth[image, v] - near) * scale
        for t in range(len(faces)):
            i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
            x, y = points[image, i, 0], points[image, i, 1]
            bx, by = points[image, j, 0] - x, points[image, j, 1] - y
            cx, cy = points[image, k, 0] - x, points[image, k, 1] - y
            area = bx * cy - by * cx
            if not area > flat:
                continue
            left = np.ceil(min(x, points[image, j, 0], points[image, k, 0]))
            top = np.ceil(min(y, points[image, j, 1], points[image, k, 1]))
            right = np.floor(max(x, points[image, j, 0], points[image, k, 0]))
            bottom = np.floor(max(y, points[image, j, 1], points[image, k, 1]))
            left, top = max(left, np.float32(0)), max(top, np.float32(0))
            right, bottom = min(right, last_column), min(bottom, last_row)
            if not (left <= right and top <= bottom):
                continue
            inverse = one / area
            z_b, z_c = z[j] - z[i], z[k] - z[i]
            # Unsigned, or numba would look at every pixel whether it is counted from the end.
            for row in range(np.uint64(top), np.uint64(bottom + one)):
                dy = np.float32(row) - y
                for column in range(np.uint64(left), np.uint64(right + one)):
                    dx = np.float32(column) - x
                    w_b = (dx * cy - dy * cx) * inverse
                    w_c = (bx * dy - by * dx) * inverse
                    if w_b >= 0 and w_c >= 0 and w_b + w_c <= one:
                        key = np.int32(z[i] + w_b * z_b + w_c * z_c)
                        if key < nearest[row, column]:
                            nearest[row, column] = key
                            seen[image, row, column] = t


def at_pixels(points, faces, seen, where, triangle, weights):
    B, height, width = seen.shape
    p = 0
    for image in range(B):
        for row in range(height):
            for column in range(width):
                t = seen[image, row, column]
                if t < 0:
                    continue
                i, j, k = faces[t]
                x, y = points[image, i]
                bx, by = points[image, j, 0] - x, points[image, j, 1] - y
                cx, cy = points[image, k, 0] - x, points[image, k, 1] - y
                dx, dy = np.float32(column) - x, np.float32(row) - y
                area = bx * cy - by * cx
                w_b, w_c = (dx * cy - dy * cx) / area, (bx * dy - by * dx) / area
                where[p], triangle[p] = (image * height + row) * width + column, t
                weights[p, 0], weights[p, 1], weights[p, 2] = np.float32(1) - w_b - w_c, w_b, w_c
                p += 1


def blend(values, faces, pixels, where, triangle, weights, out):
    start = image = 0  # of the pixel before: where its picture begins; dividing anew is slow
    for p in range(len(where)):
        if not start <= where[p] < start + pixels:
            image = where[p] // pixels
            start = image * pixels
        i, j, k = faces[triangle[p]]
        w_a, w_b, w_c = weights[p]
        for a in range(out.shape[1]):
            out[p, a] = (values[image, i, a] * w_a + values[image, j, a] * w_b
                         + values[image, k, a] * w_c)


def blend_corners(values, triangle, weights, out):
    for p in range(len(triangle)):
        t = triangle[p]
        w_a, w_b, w_c = weights[p]
        for a in range(out.shape[1]):
            out[p, a] = values[t, 0, a] * w_a + values[t, 1, a] * w_b + values[t, 2, a] * w_c


def sample(atlases, picture, texel, out):
    one = np.float32(1)
    N, height, width, C = atlases.shape
    for p in range(len(picture)):
        n = picture[p]
        # max(0, ...) in this order makes 0 of what is not a number.
        x = min(max(np.float32(0), texel[p, 0]), np.float32(width - 1))
        y = min(max(np.float32(0), texel[p, 1]), np.float32(height - 1))
        x0, y0 = int(x), int(y)
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        right, down = x - np.float32(x0), y - np.float32(y0)
        for c in range(C):
            upper = atlases[n, y0, x0, c] * (one - right) + atlases[n, y0, x1, c] * right
            lower = atlases[n, y1, x0, c] * (one - right) + atlases[n, y1, x1, c] * right
            out[p, c] = upper * (one - down) + lower * down


def normals(vertices, faces, total):
    for image in range(len(vertices)):
        for t in range(len(faces)):
            i, j, k = faces[t]
            ax, ay, az = vertices[image, i]
            bx, by, bz = vertices[image, j]
            cx, cy, cz = vertices[image, k]
            bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
            x, y, z = cy * bz - cz * by, cz * bx - cx * bz, cx * by - cy * bx
            for v in (i, j, k):
                total[image, v, 0] += x
                total[image, v, 1] += y
                total[image, v, 2] += z
        for v in range(total.shape[1]):
            x, y, z = total[image, v]
            length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
            for axis in range(3):
                total[image, v, axis] /= length
